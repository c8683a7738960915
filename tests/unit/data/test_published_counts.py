"""The manifest's verdict on the counts that a source names for a dataset's core."""

import json

import pytest

from glintru_model.config import SequencesConfig
from glintru_model.data.build import build_sequences

# Two users with three items each in common, and a third user whose only item goes with him.
ROWS = [(user, item, item) for user in (1, 2) for item in (7, 8, 9)] + [(3, 5, 1)]


@pytest.mark.parametrize(
    ("num_users", "k_core", "met"),
    [(2, 2, True), (3, 2, False), (2, 0, None)],
    ids=["as published", "others", "another core than the published one"],
)
def test_the_manifest_says_whether_the_core_is_as_published(interactions, tmp_path, capsys, num_users, k_core, met):
    directory = interactions(ROWS)
    counts = {"num_users": num_users, "num_items": 3, "num_interactions": 6}
    published = {"2": {"name": "small", "counts": counts, "source": "its README"}}
    report = {"source": {"description": "small"}, "expected_cores": published}
    (directory / "data_report.json").write_text(json.dumps(report))
    expected = build_sequences(directory, tmp_path / "sequences", SequencesConfig(k_core=k_core))["expected"]
    assert json.loads((tmp_path / "sequences" / "manifest.json").read_text())["expected"] == expected
    if met is None:
        assert expected is None
        return
    ending = "as expected" if met else f"expected were {num_users} users, 3 items, 6 interactions"
    verdict = f"small yields 2 users, 3 items, 6 interactions, {ending} (its README)"
    assert expected == {**counts, "met": met, "verdict": verdict}
    assert ("warning: " + verdict in capsys.readouterr().out) is not met
