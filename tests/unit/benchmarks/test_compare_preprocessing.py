import sys

import pytest

from benchmarks.compare_preprocessing import largest, run_limited, table

PYTHON = [sys.executable, "-c"]


def run(package, rows, seconds=None, cpu_seconds=None, error=None):
    if error:
        return {"package": package, "rows": rows, "error": error}
    return {"package": package, "rows": rows, "seconds": seconds, "cpu_seconds": cpu_seconds, "peak_gb": 1.0}


def test_a_command_that_ends_in_time_gives_its_last_line():
    found = run_limited([*PYTHON, "print('other output'); print('{\"seconds\": 2}')"], 60, 1 << 34)
    assert found == {"seconds": 2}


@pytest.mark.parametrize(
    ("code", "seconds", "megabytes", "expected"),
    [
        ("import time; time.sleep(60)", 0.3, 10_000, "not done after 0 s"),
        ("x = b'x' * (400 << 20); import time; time.sleep(60)", 60, 200, "more than 0.195 GiB of memory"),
        ("raise SystemExit('no such log')", 60, 10_000, "no such log"),
        ("import os; os.kill(os.getpid(), 9)", 60, 10_000, "ended by signal 9"),
    ],
    ids=["time", "memory", "failure", "killed"],
)
def test_what_ends_a_run(code, seconds, megabytes, expected):
    found = run_limited([*PYTHON, code], seconds, megabytes << 20)
    assert found["error"] == expected
    assert found["seconds_until_then"] < 30


RUNS = [
    run("this", 10, 1.0, 2.0),
    run("recbole", 10, 22.0, 21.0),
    run("rectools", 10, 6.0, 5.0),
    run("this", 10, 1.1, 1.9),
    run("this", 100, 8.0, 10.0),
    run("recbole", 100, error="not done after 600 s"),
    run("rectools", 100, 60.0, 50.0),
    run("this", 100, 10.0, 9.0),
]


def test_the_largest_completed_sample_counts_against_the_slower_of_our_runs():
    recbole, rectools = (largest(RUNS, package) for package in ("recbole", "rectools"))
    assert (recbole["rows"], recbole["times_slower"], recbole["times_slower_by_cpu"]) == (10, 22 / 1.1, 21 / 2)
    assert recbole["ended_by"] == "100 rows: not done after 600 s"
    assert (rectools["rows"], rectools["times_slower"], rectools["times_slower_by_cpu"]) == (100, 6.0, 5.0)
    assert rectools["ended_by"] == ""


def test_a_peer_that_completed_nothing_has_no_figure():
    found = largest([run("this", 10, 1.0, 1.0), run("recbole", 10, error="no memory")], "recbole")
    assert found == {"rows": 0, "ended_by": "10 rows: no memory"}
    lines = table({"recbole": found, "rectools": largest(RUNS, "rectools")}).splitlines()
    assert lines[2].split() == ["recbole", "0", "-", "-", "-", "-", "10", "rows:", "no", "memory"]
    assert lines[3].split()[:6] == ["rectools", "100", "60.0", "10.0", "6.0", "5.0"]
