"""What a person sees of a local run."""

import io

from glintru_model.progress import MARK
from pipelines.console import ConsoleFilter

KFP_NOISE = [
    "12:00:00.000 - INFO - Executing task \x1b[96m'ingest-interactions'\x1b[0m",
    "    [KFP Executor 1 INFO]: Looking for component `ingest` in --component_module_path",
    f"    {MARK} ingest: 10/20 rows, 5.0/s, 2 s left",
    "12:00:01.000 - INFO - Task build-sequences cache hit (key=abcdef012345); skipping execution.",
]


def shown_lines(*, show_all):
    terminal, log = io.StringIO(), io.StringIO()
    stream = ConsoleFilter(terminal, log, {"ingest-interactions": "ingest"}, show_all=show_all)
    for line in KFP_NOISE:
        stream.write(line[:10])
        stream.write(line[10:] + "\n")
    return [line[7:] for line in terminal.getvalue().splitlines()], log.getvalue()


def test_tasks_and_the_stages_own_lines_are_shown_and_all_is_logged_without_colours():
    shown, log = shown_lines(show_all=False)
    assert shown == [
        "ingest",
        "  ingest: 10/20 rows, 5.0/s, 2 s left",
        "build-sequences (unchanged, reused)",
    ]
    assert log.splitlines() == [line.replace("\x1b[96m", "").replace("\x1b[0m", "") for line in KFP_NOISE]


def test_debug_shows_everything():
    shown, _ = shown_lines(show_all=True)
    assert len(shown) == len(KFP_NOISE)
