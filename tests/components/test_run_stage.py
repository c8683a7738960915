"""How a stage's error leaves a component's process."""

import pytest

from components.run_stage import DEBUG_VARIABLE, ERROR_FILE_VARIABLE, read_error, run_stage
from glintru_model.errors import DataError, TrainingError
from glintru_model.progress import MARK


def failing(error):
    raise error


@pytest.mark.parametrize(("error", "code"), [(DataError("log.csv: no column"), 2), (TrainingError("loss is nan"), 1)])
def test_a_typed_error_is_one_line_an_exit_code_and_a_note_for_the_runner(error, code, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(ERROR_FILE_VARIABLE, str(tmp_path / "error.json"))
    monkeypatch.delenv(DEBUG_VARIABLE, raising=False)
    with pytest.raises(SystemExit) as caught:
        run_stage(failing, error)
    assert caught.value.code == code
    assert capsys.readouterr().out == f"{MARK} error: {error}\n"
    assert read_error(tmp_path / "error.json") == (str(error), code)


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setenv(DEBUG_VARIABLE, "1")
    with pytest.raises(DataError):
        run_stage(failing, DataError("x"))


def test_a_stage_that_works_hands_its_value_through_and_leaves_no_note(tmp_path):
    assert run_stage(lambda value: value + 1, 41) == 42
    assert read_error(tmp_path / "error.json") is None
