"""The data report as a page."""

import re

import pytest

from glintru_model.config import IngestConfig, SequencesConfig
from glintru_model.data.build import build_sequences
from glintru_model.data.ingest import ingest
from glintru_model.data.report import write_data_report


@pytest.fixture
def write(tmp_path):
    """Ingest a CSV, build and write its page; returns the page's text without scripts and markup."""

    def run(rows, split="leave_one_out", *, with_manifest=True, ceiling=None, change=None, k_core=0, **settings):
        path = tmp_path / "log.csv"
        path.write_text("user_id,item_id,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows))
        config = IngestConfig(source=str(path), **settings)
        report = ingest(config, tmp_path / "out", tmp_path / "downloads") | (change or {})
        manifest = build_sequences(
            tmp_path / "out", tmp_path / "sequences", SequencesConfig(split=split, k_core=k_core)
        )
        page = tmp_path / "report.html"
        write_data_report(report, page, manifest=manifest if with_manifest else None, ceiling=ceiling)
        html = page.read_text()
        text = re.sub(r"<(script|style)\b.*?</\1>", " ", html, flags=re.DOTALL)
        return html, " ".join(re.sub(r"<[^>]+>", " ", text).split())

    return run


DAY = 1_700_000_000
ROWS = [(f"u{user}", f"i{(user + step) % 7}", DAY + 86_400 * step) for user in range(5) for step in range(6)]


def test_counts_steps_and_split_are_shown(write):
    rows = [*ROWS, ("rare", "i0", DAY)]
    _, text = write(rows, k_core=2)
    assert "users 6 items 7 interactions 31" in text
    assert "from 2023-11-14 to 2023-11-19" in text
    assert "read 6 7 31" in text
    assert "k_core 2 5 7 30 3.23%" in text
    assert "rows of the log 31" in text
    assert "repeats: the user has had the item before 0 0.00%" in text
    assert "train 20 validation 5 test 5" in text
    assert "interactions of a user 1 6" in text
    assert (
        "Schema column in the log type user_id user_id string item_id item_id string timestamp timestamp int64" in text
    )
    assert "users left out (outside the 2-core) 1" in text


def test_what_an_append_adds_is_no_negative_drop(write):
    steps = [
        {"step": name, "num_users": 6, "num_items": 7, "num_interactions": n}
        for name, n in (("read", 10), ("appended to 20 interactions", 30))
    ]
    _, text = write(ROWS, change={"steps": steps})
    assert "appended to 20 interactions 6 7 30 none, 20 added" in text


def test_distributions_are_figures_of_one_self_contained_page(write):
    html, text = write(ROWS)
    assert "Users by length of history" in text
    assert "Items by popularity" in text
    assert not re.search(r"""<(script|link|img)[^>]+(src|href)=["']https?:""", html)


def test_temporal_cuts_are_shown_as_times(write):
    rows = [(f"u{user}", f"i{step % 3}", DAY + 86_400 * step) for user in range(5) for step in range(10)]
    _, text = write(rows, split="temporal")
    assert "last training time 2023-11-21 22:13:20 UTC last validation time 2023-11-22 22:13:20 UTC" in text


def test_positions_are_not_mistaken_for_times(write):
    _, text = write([(f"u{user}", f"i{step}", step) for user in range(3) for step in range(1500)])
    assert "from 0 to 1,499" in text


def test_a_missed_expectation_stands_out(write):
    verdict = "ml-1m yields 1 users, expected were 2 users"
    expected = {"num_users": 2, "met": False, "verdict": verdict}
    html, text = write(ROWS, change={"expected": expected, "warnings": [verdict]})
    assert text.count(verdict) == 1
    assert re.search(rf'class="notice bad"[^>]*>\s*{verdict}', html)


def test_the_ceiling_is_stated(write):
    _, text = write(ROWS, ceiling={"ndcg_at_10": 0.38964, "recall_at_10": 0.625})
    assert "reaches NDCG@10 0.3896" in text
    assert "recall_at_10 0.6250" in text


def test_without_sequences_the_page_has_no_split(write):
    _, text = write(ROWS, with_manifest=False)
    assert "Cleaning" in text
    assert "Split" not in text


def test_hostile_text_is_escaped(write):
    html, _ = write(ROWS, change={"warnings": ["<img src=x onerror=alert(1)>"]})
    assert "<img src=x" not in html
    assert "&lt;img src=x" in html
