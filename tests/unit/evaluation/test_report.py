import json
import re
from html.parser import HTMLParser

import pytest

from glintru_model.evaluation.compare import compare
from glintru_model.evaluation.report import write_evaluation_report
from glintru_model.evaluation.result import read_metrics
from glintru_model.evaluation.wording import baseline_verdict, comparison_verdict, in_reading_order

EVIL = "<script>alert(1)</script>"


class Tables(HTMLParser):
    """Reads every table as rows of cell texts, and the plots' JSON."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.plots: list[dict] = []
        self.links: list[str] = []
        self.tag, self.is_json = "", False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.links += [found[key] for key in ("src", "href") if key in found]
        self.is_json = tag == "script" and found.get("type") == "application/json"
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.tag = tag

    def handle_endtag(self, tag):
        self.tag, self.is_json = "" if tag == self.tag else self.tag, False

    def handle_data(self, data):
        if self.tag:
            self.rows[-1][-1] += data
        if self.is_json:
            self.plots.append(json.loads(data))

    def starting_with(self, first: str) -> list[list[str]]:
        return [row for row in self.rows if row and row[0] == first]


@pytest.fixture(scope="module")
def run_report(run_report_path):
    return run_report_path.read_text(encoding="utf-8")


def test_run_report_shows_the_figures_of_metrics_json(run_report, evaluations):
    documents = {name: read_metrics(directory) for name, directory in evaluations.items()}
    rows = Tables(run_report).starting_with("NDCG@10")
    for document, cell in zip(documents.values(), rows[0][1:3], strict=True):
        metric = document["metrics"]["ndcg_at_10"]
        assert cell.split() == [
            f"{metric['value']:.4f}",
            f"{metric['low']:.4f}",
            "\N{EN DASH}",
            f"{metric['high']:.4f}",
        ]
    baseline = documents["glintru"]["baselines"]["popularity"]["ndcg_at_10"]["value"]
    assert rows[0][3].startswith(f"{baseline:.4f}")
    assert rows[0][-1] == "0.9000"
    difference = compare(evaluations)["metrics"]["ndcg_at_10"]["difference"]
    assert rows[1][1].replace("\N{MINUS SIGN}", "-").startswith(f"{difference:.4f}")


def test_run_report_holds_each_part(run_report):
    parts = re.findall(r"<h2[^>]*>([^<]*)</h2>", run_report)
    assert parts == [
        "Metrics",
        "Where each model wins",
        "Sample recommendations",
        "Training and its cost",
        "Tuning",
        "Data",
        "Registered versions",
        "How it was measured",
    ]
    tables = Tables(run_report)
    assert tables.starting_with("glintru")[-1][1:3] == ["4", "champion"]
    assert tables.starting_with("sasrec")[-1][1:] == ["9", "challenger", "below version 8"]
    assert tables.starting_with("5-core") == [["5-core", "80", "30", "900"]]
    assert tables.starting_with("columns.user_id") == [["columns.user_id", EVIL]]
    assert "fewer items than expected" in run_report
    cost = tables.starting_with("SASRec")[-1]
    assert cost[1:7] == ["12,345", "6.500", "3", "3", "1,000", "50.00"]
    assert "every other candidate with the target" in run_report


def test_run_report_shows_how_the_log_is_distributed(run_report):
    plots = {plot["layout"]["xaxis"].get("title", {}).get("text"): plot for plot in Tables(run_report).plots}
    lengths, popularity = plots["interactions"]["data"][0], plots["rank of the item"]["data"][0]
    assert (lengths["x"], lengths["y"], lengths["customdata"]) == ([5, 10], [61, 19], ["5 to 9", "10 to 40"])
    assert (popularity["x"], popularity["y"]) == ([1, 30], [80, 3])


def test_hits_are_counted_at_each_cutoff(run_report, evaluations):
    for cutoff in (5, 10):
        (row,) = Tables(run_report).starting_with(f"Hits@{cutoff}")
        assert [int(cell) for cell in row[1:3]] == [
            read_metrics(directory)["hits"][f"hits_at_{cutoff}"] for directory in evaluations.values()
        ]


def test_lists_are_shown_with_intervals(run_report, evaluations):
    found = {row[0]: row for row in Tables(run_report).rows if len(row) == 4 and "\N{EN DASH}" in row[1]}
    document = read_metrics(evaluations["glintru"])
    for name, metrics in (("GLINT-RU", document["metrics"]), ("ItemKNN", document["baselines"]["item_knn"])):
        for cell, metric in zip(found[name][1:], ("coverage", "novelty", "popularity_bias"), strict=True):
            shown = re.findall(r"[0-9.]+", cell)
            scale = 100 if metric == "coverage" else 1
            expected = [abs(scale * metrics[f"{metric}_at_10"][key]) for key in ("value", "low", "high")]
            assert [float(part) for part in shown] == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_sampled_metrics_have_a_table_of_their_own(run_report, evaluations):
    value = read_metrics(evaluations["glintru"])["metrics"]["ndcg_at_10_pop100"]["value"]
    (row,) = Tables(run_report).starting_with("NDCG@10, pop100")
    assert row[1].startswith(f"{value:.4f}")
    assert len(Tables(run_report).starting_with("NDCG@10")) == 2  # the metric itself, and its difference


def test_both_learning_curves_lie_in_one_plot_with_the_chosen_epoch(run_report):
    curves = next(plot for plot in Tables(run_report).plots if plot["data"][0].get("name") == "GLINT-RU")
    plots = [plot for plot in Tables(run_report).plots if plot["layout"].get("xaxis", {}).get("tickformat") == "d"]
    lines = {trace["name"]: trace for trace in plots[0]["data"] if trace["mode"] == "lines"}
    assert curves["data"]
    assert lines["GLINT-RU"]["y"] == [0.1, 0.11, 0.1]
    assert lines["SASRec"]["y"] == [0.1, 0.1, 0.11]
    chosen = [(trace["x"], trace["y"]) for trace in plots[0]["data"] if trace["mode"] == "markers"]
    assert chosen == [([2], [0.11]), ([3], [0.11])]


def test_reports_escape_ids_and_need_no_network(run_report, evaluations, training, tmp_path):
    write_evaluation_report(tmp_path / "report.html", "glintru", evaluations["glintru"], training)
    for text in (run_report, (tmp_path / "report.html").read_text(encoding="utf-8")):
        assert EVIL not in text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
        assert [link for link in Tables(text).links if not link.startswith("#")] == []


def test_evaluation_report_stands_without_a_training(evaluations, tmp_path):
    write_evaluation_report(tmp_path / "report.html", "sasrec", evaluations["sasrec"])
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    _, verdict = baseline_verdict("sasrec", read_metrics(evaluations["sasrec"]))
    assert verdict.split(" (")[0] in text
    value = read_metrics(evaluations["sasrec"])["metrics"]["recall_at_10"]["value"]
    assert Tables(text).starting_with("Recall@10")[0][1].startswith(f"{value:.4f}")
    assert "<h2" in text
    assert ">Training<" not in text


def pair(difference, low, high):
    return {"ndcg_at_10": {"difference": difference, "low": low, "high": high, "p_value": 0.01}}


def test_a_model_that_does_not_beat_a_baseline_is_said_not_to():
    document = {
        "baseline_comparisons": {"popularity": pair(0.03, 0.02, 0.04), "markov_chain": pair(0.002, -0.001, 0.005)}
    }
    assert baseline_verdict("sasrec", document) == (
        False,
        "SASRec does not beat Markov chain (difference 0.0020, 95 % interval -0.0010 to 0.0050) on NDCG@10; "
        "it beats popularity.",
    )
    document = {"baseline_comparisons": {"popularity": pair(-0.03, -0.04, -0.02)}}
    assert baseline_verdict("glintru", document) == (
        False,
        "GLINT-RU does not beat popularity (difference -0.0300, 95 % interval -0.0400 to -0.0200) on NDCG@10.",
    )


def test_a_model_that_beats_them_all_is_measured_by_the_strongest():
    document = {"baseline_comparisons": {"popularity": pair(0.03, 0.02, 0.04), "item_knn": pair(0.01, 0.005, 0.02)}}
    assert baseline_verdict("glintru", document) == (
        True,
        "GLINT-RU beats every baseline on NDCG@10; the strongest, ItemKNN, by 0.0100, 95 % interval 0.0050 to 0.0200.",
    )


@pytest.mark.parametrize(
    ("metrics", "sentence"),
    [
        (
            pair(0.01, 0.005, 0.02),
            "GLINT-RU is better than SASRec on NDCG@10 by 0.0100, 95 % interval 0.0050 to 0.0200",
        ),
        (pair(-0.01, -0.02, -0.005), "SASRec is better than GLINT-RU on NDCG@10 by 0.0100, 95 % interval 0.0050 to"),
        (pair(0.01, -0.005, 0.02), "Neither of GLINT-RU and SASRec is better on NDCG@10 as far as 943 users can tell"),
    ],
)
def test_comparison_says_who_is_better_or_that_nobody_is(metrics, sentence):
    comparison = {"first": "glintru", "second": "sasrec", "num_users": 943, "metrics": metrics}
    assert comparison_verdict(comparison).startswith(sentence)


def test_metrics_are_listed_in_reading_order():
    names = ["mrr_at_10", "ndcg_at_20", "novelty_at_10", "ndcg_at_5", "recall_at_10"]
    assert in_reading_order(names) == ["ndcg_at_5", "ndcg_at_20", "recall_at_10", "mrr_at_10", "novelty_at_10"]


def test_tuning_is_plotted_by_trial_and_by_hyperparameter(run_report):
    plots = {plot["layout"].get("xaxis", {}).get("title", {}).get("text"): plot for plot in Tables(run_report).plots}
    by_trial = {trace["name"]: (trace["x"], trace["y"]) for trace in plots["trial"]["data"]}
    assert by_trial == {"best so far": ([0], [0.08]), "complete": ([0], [0.08]), "pruned": ([1], [0.05])}
    by_rate = [(trace["name"], trace["x"], trace["y"]) for trace in plots["learning_rate"]["data"]]
    assert by_rate == [
        ("GLINT-RU", [0.002], [0.08]),
        ("GLINT-RU", [0.01], [0.05]),
        ("SASRec", [0.002], [0.08]),
        ("SASRec", [0.01], [0.05]),
    ]
