"""How a command of this project ends: an exit code, and one line instead of a traceback."""

import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType

from glintru_model.errors import GlintruError

INTERRUPTED = 130


def run_command(command: Callable[[], int | None], *, debug: bool = False) -> int:
    """Run a command to its exit code: its own, or 2 for bad input, 1 for a failure, 130 for an interruption.

    A polite end (SIGTERM) is an interruption too, so that what the command began is closed. `debug` shows tracebacks.
    """
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return command() or 0
    except GlintruError as error:
        return _failed(str(error), error.exit_code, debug=debug)
    except OSError as error:  # the system's own refusals: a full disk, a folder without permission
        where = f"{error.filename}: " if error.filename else ""
        return _failed(f"{where}{error.strerror or error}", 1, debug=debug)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _failed(message: str, exit_code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    return exit_code
