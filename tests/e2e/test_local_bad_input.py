"""What a user sees of a log or of settings that the pipeline cannot use, by the command that she types."""

import pytest
import yaml

from tests.e2e.running import SETTINGS, run_pipeline, write_log

pytestmark = pytest.mark.slow


def good_log(path):
    write_log(path, num_users=10)


ZERO_LENGTH = {"models": {"sasrec": {"architecture": {"max_seq_len": 0}}}}


def event_log(user="1", item="1", timestamp="1600000000"):
    """Write one row that cannot be used between good ones."""

    def write(path):
        good_log(path)
        path.write_text(path.read_text() + f"{user},{item},{timestamp}\n")

    return write


def refused(**ingest):
    return {"ingest": ingest}


BAD = {  # how the log is written, settings laid over the good ones, what the line must name
    "missing column": (
        lambda p: write_log(p, 10, ("user", "item_id", "timestamp")),
        {},
        ["log.csv", "user_id", "user"],
    ),
    "empty file": (lambda p: p.write_text(""), {}, ["log.csv", "empty"]),
    "nobody left": (good_log, {"sequences": {"k_core": 500}}, ["k_core", "500"]),
    "no such file": (lambda p: None, {}, ["log.csv"]),
    "negative timestamp": (event_log(timestamp="-5"), {}, ["log.csv", "timestamp", "-5"]),
    "text timestamp": (event_log(timestamp="yesterday"), {}, ["log.csv", "timestamp", "yesterday"]),
    "null id": (event_log(user=""), {}, ["log.csv", "user_id", "missing"]),
    "unreadable Parquet": (good_log, refused(format="parquet"), ["log.csv", "Parquet"]),
    "wrong checksum": (good_log, refused(checksum="md5:" + 32 * "0"), ["log.csv", "md5", 32 * "0"]),
    "setting": (good_log, ZERO_LENGTH, ["models.sasrec.architecture.max_seq_len", "0"]),
    "unknown key": (good_log, {"trainning": {}}, ["trainning"]),
    "unknown model": (good_log, {"models": {"bert4rec": {}}}, ["bert4rec", "glintru, sasrec"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2(case, tmp_path):
    write, changes, parts = BAD[case]
    log, config = tmp_path / "log.csv", tmp_path / "run.yaml"
    write(log)
    config.write_text(yaml.safe_dump({**SETTINGS, **changes}))
    outcome = run_pipeline("--config", config, "--data", log, "--runs-dir", tmp_path / "runs")
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line
    assert "Traceback" not in outcome.out
    assert not list((tmp_path / "runs").rglob("sequences.arrow"))


def test_an_unknown_dataset_is_one_line_and_exit_code_2(tmp_path):
    outcome = run_pipeline("--data", "ml-10m", "--runs-dir", tmp_path / "runs")
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ")
    assert "ml-10m" in line
    assert "ml-100k" in line
    assert not (tmp_path / "runs").exists()
