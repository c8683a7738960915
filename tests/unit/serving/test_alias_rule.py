"""The rule for aliases as a table."""

import pytest

from glintru_model.config import RegistryConfig
from glintru_model.serving.alias_rule import Contest, Refusal, decide


def contest(difference, low, high):
    return Contest("ndcg_at_10", 943, 0.1 + difference, 0.1, difference, low, high, 0.04)


CLEAR, LIKELY, LEVEL, WORSE = (
    contest(0.02, 0.01, 0.03),
    contest(0.02, -0.01, 0.05),
    contest(0.0, 0.0, 0.0),
    contest(-0.02, -0.03, -0.01),
)
BOOTSTRAP, MARGIN = RegistryConfig(), RegistryConfig(margin=0.015)
MEAN, MANUAL = RegistryConfig(rule="mean"), RegistryConfig(rule="manual")


@pytest.mark.parametrize(
    ("champion", "outcome", "config", "alias", "reason"),
    [
        (None, None, BOOTSTRAP, "champion", "first champion"),
        (None, None, MANUAL, "champion", "first champion"),
        ("3", CLEAR, BOOTSTRAP, "champion", "0.1200 against 0.1000 of version 3, the champion, on the same 943 users"),
        ("3", CLEAR, BOOTSTRAP, "champion", "difference 0.0200, 95 % interval 0.0100 to 0.0300, p = 0.04"),
        ("3", CLEAR, MARGIN, "challenger", "lower bound of the interval must exceed 0.015"),
        ("3", LIKELY, BOOTSTRAP, "challenger", "not better"),
        ("3", LIKELY, MEAN, "champion", "better than the champion"),
        ("3", LIKELY, RegistryConfig(rule="mean", margin=0.02), "challenger", "the mean must exceed 0.02"),
        ("3", LEVEL, BOOTSTRAP, "challenger", "not better"),
        ("3", LEVEL, MEAN, "challenger", "not better"),
        ("3", WORSE, BOOTSTRAP, "challenger", "not better"),
        ("3", contest(float("nan"), float("nan"), float("nan")), BOOTSTRAP, "challenger", "not better"),
        ("3", CLEAR, MANUAL, "challenger", "by hand"),
        ("3", Refusal("its training saw 2 events"), BOOTSTRAP, "challenger", "no yardstick: its training saw 2 events"),
        ("3", Refusal("x"), MEAN, "challenger", "version 3, the champion, is no yardstick"),
    ],
)
def test_alias(champion, outcome, config, alias, reason):
    decision = decide(champion, outcome, config)
    assert decision.alias == alias
    assert reason in decision.reason
    assert "\n" not in decision.reason
