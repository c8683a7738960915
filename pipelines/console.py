"""What a person sees of a local run: the stages' own lines with a clock; kfp's full log goes to a file."""

import io
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TextIO

from glintru_model.progress import MARK

_COLOUR = re.compile(r"\x1b\[\d+m")
_TASK_STARTS = re.compile(r"Executing task '([^']+)'")
_TASK_CACHED = re.compile(r"Task (\S+) cache hit")


def without_colours(text: str) -> str:
    """Take terminal colours out of a text."""
    return _COLOUR.sub("", text)


def clock(seconds: float) -> str:
    """Write elapsed seconds as `m:ss`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class ConsoleFilter(io.TextIOBase):
    """A stdout that keeps every line in a log file and shows the user the lines meant for one.

    `titles` maps kfp's names of tasks to those that a person reads.
    """

    def __init__(self, terminal: TextIO, log: TextIO, titles: Mapping[str, str], *, show_all: bool) -> None:
        self._terminal, self._log, self._titles, self._show_all = terminal, log, titles, show_all
        self._lock, self._partial, self._start = threading.Lock(), "", time.monotonic()

    def writable(self) -> bool:
        """Say that this stream takes text."""
        return True

    def write(self, text: str) -> int:
        """Take text as it comes; act on whole lines. Tasks in a loop write from several threads."""
        with self._lock:
            *lines, self._partial = (self._partial + text).split("\n")
            for line in lines:
                self._line(without_colours(line))
        return len(text)

    def flush(self) -> None:
        """Flush the log."""
        self._log.flush()

    def _line(self, line: str) -> None:
        self._log.write(line + "\n")
        self._log.flush()
        shown = line if self._show_all else self._for_user(line.strip())
        if shown is not None:
            self._terminal.write(f"{clock(time.monotonic() - self._start):>5}  {shown}\n")
            self._terminal.flush()

    def _for_user(self, line: str) -> str | None:
        if line.startswith(MARK):
            return f"  {line.removeprefix(MARK).strip()}"
        if cached := _TASK_CACHED.search(line):
            return f"{self._title(cached[1])} (unchanged, reused)"
        if starts := _TASK_STARTS.search(line):
            return self._title(starts[1])
        return None

    def _title(self, task: str) -> str:
        return self._titles.get(task, task)


@contextmanager
def filtered_stdout(log_path: Path, titles: Mapping[str, str], *, show_all: bool) -> Iterator[None]:
    """Send stdout through a `ConsoleFilter` that logs to `log_path` for the length of a block."""
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with (
        log_path.open("a", encoding="utf-8") as log,
        redirect_stdout(ConsoleFilter(sys.stdout, log, titles, show_all=show_all)),
    ):
        yield
