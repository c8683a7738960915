import subprocess
import sys

import numpy as np

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
