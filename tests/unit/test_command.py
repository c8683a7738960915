"""How a command ends."""

import errno
import os
import signal

import pytest

from glintru_model.command import run_command
from glintru_model.errors import DataError, TrackingError


def raising(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DataError("log.csv: empty"), 2, "error: log.csv: empty"),
        (TrackingError("MLflow: no answer"), 1, "error: MLflow: no answer"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/x"), 1, "error: runs/x: No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(error, code, line, capsys):
    assert run_command(raising(error)) == code
    assert capsys.readouterr().err == f"{line}\n"


def test_debug_shows_where_it_came_from(capsys):
    assert run_command(raising(DataError("x")), debug=True) == 2
    assert "Traceback" in capsys.readouterr().err


def test_sigterm_interrupts_and_the_former_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    assert run_command(lambda: signal.raise_signal(signal.SIGTERM)) == 130
    assert signal.getsignal(signal.SIGTERM) is before
    assert run_command(lambda: None) == 0
    assert run_command(lambda: 7) == 7
