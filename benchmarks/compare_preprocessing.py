"""This package's ingest and sequence building against RecBole's and RecTools' own preprocessing, in one run.

    python -m benchmarks.compare_preprocessing --work /scratch --peers peers/bin/python --rows 1000000 10000000

The peers' environment: `pip install recbole==1.2.1 "rectools[torch]==0.19.0" "torch==2.13.0" "numpy<2" "pyarrow<22"`.

Every package gets every log, each in a process of its own, until one fails, takes longer than `--limit-seconds` or
holds more than 24 GiB of resident memory; what it
completed last is compared per row with this package on the same log.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.data_at_scale import describe_machine
from benchmarks.scale_log import write_scale_log
from glintru_model.files import write_json
from glintru_model.progress import say

_PEERS = Path(__file__).with_name("peers_preprocessing.py")
_MEMORY_BYTES = 24 << 30


def main() -> None:
    """Run all and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--peers", required=True, help="python of an environment with recbole and rectools")
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--limit-seconds", type=float, default=200)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/preprocessing_peers.json"))
    options = parser.parse_args()
    runs: list[dict[str, Any]] = []
    packages = ["recbole", "rectools"]
    for rows in options.rows:
        log = options.work / f"log-{rows}"
        if not log.exists():
            write_scale_log(log, rows)
        command = [sys.executable, "-m", "benchmarks.data_at_scale", "--work", str(options.work), "--single", str(log)]
        ours = {"package": "this", "rows": rows, **_run(command, options.limit_seconds)}
        runs.append(ours)
        for package in list(packages):
            found = _run([options.peers, str(_PEERS), package, str(log)], options.limit_seconds)
            runs.append({"package": package, "rows": rows, **found})
            if "error" in found:
                packages.remove(package)
                say(f"{package}, {rows:,} rows: {found['error']}")
            else:
                times = found["seconds"] / ours["seconds"]
                runs[-1]["times_slower"] = times
                runs[-1]["times_slower_by_cpu"] = found["cpu_seconds"] / ours["cpu_seconds"]
                say(
                    f"{package}, {rows:,} rows: {found['seconds']:.1f} s, {times:.1f} times this package's, "
                    f"{runs[-1]['times_slower_by_cpu']:.1f} times its CPU seconds"
                )
    write_json(options.output, {"hardware": describe_machine(), "limit_seconds": options.limit_seconds, "runs": runs})


def _run(command: list[str], limit: float) -> dict[str, Any]:
    """Run one package; kill it where it takes too long or its resident memory grows beyond the limit."""
    begin, largest = time.monotonic(), 0
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors)
        error = ""
        while process.poll() is None and not error:
            largest = max(largest, _resident_bytes(process.pid))
            if time.monotonic() - begin > limit:
                error = f"not done after {limit:.0f} s"
            elif largest > _MEMORY_BYTES:
                error = f"more than {_MEMORY_BYTES / 2**30:.0f} GiB of memory"
            time.sleep(0.05)
        if error:
            process.kill()
        code = process.wait()
        output.seek(0)
        errors.seek(0)
        if code and not error:
            error = (errors.read().strip().splitlines() or [f"ended by signal {-code}"])[-1][:300]
        if error:
            return {"error": error, "peak_gb": largest / 1e9}
        return dict(json.loads(output.read().splitlines()[-1]))


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):  # it has just ended
        return 0


if __name__ == "__main__":
    main()
