import platform
import subprocess
import sys

import numpy as np
import pytest

from glintru_model import memory

CHILD = """
from glintru_model.memory import peak_resident_bytes
before = peak_resident_bytes()
held = bytearray(b"x" * (200 << 20))
del held
print(before, peak_resident_bytes())
"""


def test_the_peak_is_the_process_own_and_stays():
    parent = np.ones(400 << 20, dtype=np.uint8)  # what a child's `ru_maxrss` would begin with
    done = subprocess.run([sys.executable, "-c", CHILD], check=True, capture_output=True, text=True)
    before, after = map(int, done.stdout.split())
    assert before < parent.nbytes // 2
    assert after - before > 150 << 20


HOLES = """
import os
from pathlib import Path
from glintru_model.memory import FreedMemory

def resident():
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")

memory, before = FreedMemory(), resident()
blocks = [b"x" * 100_000 for _ in range(4_000)]
blocks = blocks[::40]  # each keeps what is below it from falling off the heap's end
holes = resident()
memory.give_back()
first = resident()
blocks.append([b"x" * 100_000 for _ in range(40)])
memory.give_back()
print(holes - before, first - before, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have other remedies")
def test_holes_are_given_back_once_memory_has_grown_enough():
    done = subprocess.run([sys.executable, "-c", HOLES], check=True, capture_output=True, text=True)
    holes, given_back, little_more = map(int, done.stdout.split())
    assert holes > 300e6
    assert given_back < 50e6
    assert little_more - given_back > 2e6  # too little to look at


def test_memory_that_is_needed_again_at_once_is_given_back_seldom(monkeypatch):
    trimmed, freed = [], memory.FreedMemory()
    monkeypatch.setattr(freed, "_trim", trimmed.append)
    monkeypatch.setattr(freed, "_needed_pages", 100)
    monkeypatch.setattr(freed, "_resident_pages", lambda: 100 if len(trimmed) > calls else 500)
    now = 50.0
    monkeypatch.setattr(memory.time, "monotonic", lambda: now)
    for second in range(20):
        now, calls = 50.0 + second, len(trimmed)
        freed.give_back()
    assert len(trimmed) == 20 / memory.SECONDS_BETWEEN


def test_a_kernel_that_does_not_tell_the_peak_is_no_failure(tmp_path, monkeypatch):
    status = tmp_path / "status"
    status.write_text("VmSize:  100 kB\nVmRSS:   50 kB\n")
    monkeypatch.setattr(memory, "_STATUS", status)
    assert memory.peak_resident_bytes() > 10 << 20
