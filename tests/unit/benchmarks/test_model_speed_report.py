import pytest

from benchmarks.model_speed_report import text_tables, write_page


def run(targets, peak=1.0, users=100.0, share=None, curve=((10.0, 0.02), (20.4, 0.06))):
    found = {"targets_per_second": targets, "peak_gb": peak, "users_per_second": users}
    found |= {"curve": [list(point) for point in curve], "seconds_trained": curve[-1][0]}
    return found if share is None else {**found, "share_of_matrix_rate": share}


def results(max_seq_len=200, **changed):
    runs = {
        "glintru": run(4_000.0, peak=1.5, users=250.0, share=0.499),
        "recbole-gru4rec": {"error": "out of memory"},
        "recbole-sasrec": run(20.0, peak=9.69, users=100.0, curve=[(15.0, 0.0125), (30.0, 0.025)]),
        "rectools-sasrec": run(1_000.0),
        "sasrec": run(6_000.0, peak=0.7, users=200.0, share=0.5),
    }
    log = {"max_seq_len": max_seq_len, "goal": 0.05, "runs": runs | changed}
    return {"hardware": {"processor": "a processor"}, "seconds": 30, "logs": {"some-log": log}}


def rows_of(found):
    """Return the printed rows by their first cell; cells are two spaces or more apart."""
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text_tables(found).splitlines()]
    return {row[0]: row[1:] for row in cells if row}


def test_measured_figures_stand_in_a_row_each_own_models_first():
    found = rows_of(results())
    assert "some-log, max_seq_len 200, 30 s of training each" in found
    models = ["SASRec", "GLINT-RU causal", "RecTools SASRec", "RecBole SASRec"]
    assert [name for name in found if name in models] == models
    assert found["SASRec"] == ["6,000", "50%", "0.70", "200", "20 s"]
    assert found["RecBole SASRec"] == ["20", "-", "9.69", "100", "not in 30 s (0.0250)"]


def test_a_failed_peer_is_named_and_left_out_of_table_and_ratios():
    found = rows_of(results())
    assert "RecBole GRU4Rec" not in found
    assert "RecBole GRU4Rec failed: out of memory" in found
    assert found["top-10 users/s, SASRec / RecBole GRU4Rec"] == ["-", "≥ 2", "not measured"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("targets/s, SASRec / RecTools SASRec", ["6.000", "≥ 5", "met"]),
        ("targets/s, SASRec / RecBole SASRec", ["300.0", "≥ 300", "met"]),
        ("targets/s, GLINT-RU causal / RecTools SASRec", ["4.000", "≥ 5", "not met"]),
        ("share of the matrix rate, SASRec", ["0.5000", "≥ 0.5", "met"]),
        ("share of the matrix rate, GLINT-RU causal", ["0.4990", "≥ 0.5", "not met"]),
        ("peak GB, SASRec", ["0.7000", "< 1.5", "met"]),
        ("peak GB, GLINT-RU causal", ["1.500", "< 1.5", "not met"]),
        ("top-10 users/s, SASRec / RecBole SASRec", ["2.000", "≥ 2", "met"]),
    ],
)
def test_ratios_are_judged_by_the_bounds_of_the_length(asked, expected):
    assert rows_of(results())[asked] == expected


def test_the_length_decides_which_bounds_there_are():
    short, other = rows_of(results(max_seq_len=50)), rows_of(results(max_seq_len=100))
    assert short["targets/s, SASRec / RecTools SASRec"] == ["6.000", "≥ 20", "not met"]
    assert short["targets/s, SASRec / RecBole SASRec"] == ["300.0", "-", "-"]
    assert other["targets/s, SASRec / RecTools SASRec"] == ["6.000", "-", "-"]
    assert other["peak GB, SASRec"] == ["0.7000", "-", "-"]


def test_the_page_has_the_tables_and_the_plots(tmp_path):
    write_page(results(), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    body = text[text.rindex("</style>") :]
    for shown in ("not in 30 s (0.0250)", "not met", "RecBole GRU4Rec failed: out of memory"):
        assert shown in body
    for caption in ("Training targets per second", "Users per second", "Peak memory", "NDCG@10 on validation"):
        assert caption in body
    assert '"x": [15.0, 30.0], "y": [0.0125, 0.025]' in body


def test_on_a_gpu_the_figures_stand_without_bounds_which_are_a_cores(tmp_path):
    found = results()
    found["hardware"]["gpu"] = "some card"
    assert not any("asked for" in name or " / " in name for name in rows_of(found))
    assert rows_of(found)["SASRec"][0] == "6,000"
    write_page(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "some card" in page
    assert "What is asked for" not in page
