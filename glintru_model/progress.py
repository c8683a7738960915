"""Progress of long work, as plain lines: what, how far, how fast, how long still.

Lines (not a bar redrawn in place), because the same stage writes to a terminal, to a pod's log and to a file.
"""

import sys
import time

MARK = "»"  # opens every line meant for the user; a runner may show these lines alone


def say(message: str, *, aside: bool = False) -> None:
    """Print one line for the user, at once; `aside` on standard error, where the caller's output may be data."""
    print(f"{MARK} {message}", flush=True, file=sys.stderr if aside else sys.stdout)


def format_seconds(seconds: float) -> str:
    """Write a duration for a person: `8 s`, `2 min 05 s`, `1 h 04 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """Says how far a loop of known length is, no more often than every `interval_seconds`."""

    def __init__(self, what: str, total: float, unit: str, interval_seconds: float = 5.0) -> None:
        self._what, self._total, self._unit, self._interval = what, total, unit, interval_seconds
        self._start = self._last = time.monotonic()

    def update(self, done: float, detail: str = "", *, force: bool = False) -> None:
        """Report that `done` of the total units are finished; `detail` is appended."""
        now = time.monotonic()
        if not force and now - self._last < self._interval and done < self._total:
            return
        self._last = now
        rate = done / max(now - self._start, 1e-9)
        left = format_seconds((self._total - done) / rate) if rate > 0 else "?"
        parts = [f"{self._what}: {done:,.0f}/{self._total:,.0f} {self._unit}", f"{rate:,.1f}/s", f"{left} left"]
        say(", ".join(parts + ([detail] if detail else [])))
