"""Progress lines."""

import pytest

from glintru_model import progress
from glintru_model.progress import MARK, Progress, format_seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (125, "2 min 05 s"), (3840, "1 h 04 min"), (59.6, "1 min 00 s")]
)
def test_durations_read_well(seconds, text):
    assert format_seconds(seconds) == text


def test_a_line_states_rate_and_remaining_time_and_is_not_repeated_too_often(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = Progress("train", total=100, unit="batches", interval_seconds=5)
    for done, at in ((10, 101), (50, 110), (55, 111), (100, 112)):
        now[0] = at
        bar.update(done, "loss 1.0")
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{MARK} train: 50/100 batches, 5.0/s, 10 s left, loss 1.0",
        f"{MARK} train: 100/100 batches, 8.3/s, 0 s left, loss 1.0",
    ]
