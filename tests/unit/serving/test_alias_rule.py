"""The rule for aliases as a table."""

import pytest

from glintru_model.serving.alias_rule import Standing, decide

CHAMPION = Standing("3", "data", 0.10)


@pytest.mark.parametrize(
    ("newcomer", "champion", "alias", "reason"),
    [
        (Standing("1", "data", 0.01), None, "champion", "first champion"),
        (Standing("1", "data", None), None, "champion", "validation ndcg_at_10 nothing"),
        (Standing("4", "data", 0.11), CHAMPION, "champion", "0.1100 against 0.1000 of version 3"),
        (Standing("4", "data", 0.10), CHAMPION, "challenger", "not better"),
        (Standing("4", "data", 0.09), CHAMPION, "challenger", "0.0900 against 0.1000 of version 3"),
        (Standing("4", "data", float("nan")), CHAMPION, "challenger", "not better"),
        (Standing("4", "other", 0.99), CHAMPION, "challenger", "another dataset"),
        (Standing("4", "data", None), CHAMPION, "challenger", "no validation"),
        (Standing("4", "data", 0.2), Standing("3", "data", None), "challenger", "no validation"),
        (Standing("4", "data", 0.2), Standing("3", "", 0.1), "challenger", "another dataset"),
        (CHAMPION, CHAMPION, "champion", "already"),
    ],
)
def test_alias(newcomer, champion, alias, reason):
    decision = decide(newcomer, champion)
    assert decision.alias == alias
    assert reason in decision.reason
