"""This package's ingest and sequence building against RecBole's and RecTools' own preprocessing, in one run.

    python -m benchmarks.compare_preprocessing --work /scratch --peers build/peers/bin/python

The peers' environment: `pip install -r benchmarks/peers.txt`. Logs of growing size are climbed like a ladder. On each,
this package runs before and after the peers and the slower of both counts; every run is a process of its own. A peer
drops out once it fails, takes longer than `--limit-seconds` or holds more than `--memory-gib` of resident memory (or
all that the machine has); what it completed last is compared, per row, with this package on the same log.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.data_at_scale import describe_machine
from benchmarks.scale_log import write_scale_log
from glintru_model.files import write_json
from glintru_model.progress import say
from pipelines.summary import text_table

_PEERS = ("recbole", "rectools")
_OURS = "this"
_SPARED_BYTES = 512 << 20  # of the machine's memory: where less is free, the next to ask would end another process


def main() -> None:
    """Run all, show what came out and write it."""
    options = _options()
    results: dict[str, Any] = {
        "hardware": describe_machine(),
        "limits": {"memory_gib": options.memory_gib, "seconds": options.limit_seconds},
        "runs": [],
    }
    for run in climb(options):
        results["runs"].append(run)
        results["largest"] = {package: largest(results["runs"], package) for package in _PEERS}
        write_json(options.output, results)
        say(_in_words(run))
    print(table(results["largest"]))


def climb(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield one run after another: of each size this package, the peers that are left, this package again."""
    left = list(_PEERS)
    for rows in options.rows:
        if not left:
            return
        log = options.work / f"log-{rows}"
        if not log.exists():
            write_scale_log(log, rows)
        ours = [sys.executable, "-m", "benchmarks.data_at_scale", "--work", str(options.work), "--single", str(log)]
        theirs = [options.peers, "-m", "benchmarks.peers_preprocessing"]
        commands = {package: [*theirs, package, str(log)] for package in left}
        for package, command in [(_OURS, ours), *commands.items(), (_OURS, ours)]:
            found = run_limited(command, options.limit_seconds, int(options.memory_gib * 2**30))
            yield {**found, "package": package, "rows": rows}
            if "error" in found and package in left:
                left.remove(package)


def run_limited(command: Sequence[str], seconds: float, memory_bytes: int) -> dict[str, Any]:
    """Run a command that ends with a line of JSON; kill it where it takes too long or grows too large.

    Returns:
        The JSON, or `error` in words, with what memory and time it had taken by then.
    """
    begin, peak, error = time.monotonic(), 0, ""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors)
        while process.poll() is None and not error:
            peak = max(peak, _resident_bytes(process.pid))
            if time.monotonic() - begin > seconds:
                error = f"not done after {seconds:.0f} s"
            elif peak > memory_bytes:
                error = f"more than {memory_bytes / 2**30:.3g} GiB of memory"
            elif _free_bytes() < _SPARED_BYTES:
                error = f"all memory that was free, {peak / 2**30:.1f} GiB"
            time.sleep(0.05)
        if error:
            process.kill()
        code = process.wait()
        output.seek(0)
        errors.seek(0)
        if code and not error:
            error = (errors.read().strip().splitlines() or [f"ended by signal {-code}"])[-1][:300]
        if error:
            return {"error": error, "peak_gb": peak / 1e9, "seconds_until_then": time.monotonic() - begin}
        return dict(json.loads(output.read().splitlines()[-1]))


def largest(runs: Sequence[dict[str, Any]], package: str) -> dict[str, Any]:
    """Compare a peer's largest completed sample with this package's slower run on it; say what ended the climb."""
    of_package = [run for run in runs if run["package"] == package]
    ended = next((f"{run['rows']:,} rows: {run['error']}" for run in of_package if "error" in run), "")
    done = [run for run in of_package if "error" not in run]
    if not done:
        return {"rows": 0, "ended_by": ended}
    last = max(done, key=lambda run: int(run["rows"]))
    ours = [run for run in runs if run["package"] == _OURS and run["rows"] == last["rows"] and "error" not in run]
    if not ours:
        return {"rows": last["rows"], "ended_by": ended}
    compared = {name: (last[name], max(run[name] for run in ours)) for name in ("seconds", "cpu_seconds")}
    return {
        "rows": last["rows"],
        "ended_by": ended,
        "peak_gb": last["peak_gb"],
        "peak_gb_of_this": max(run["peak_gb"] for run in ours),
        **{name: theirs for name, (theirs, _) in compared.items()},
        **{f"{name}_of_this": own for name, (_, own) in compared.items()},
        "times_slower": compared["seconds"][0] / compared["seconds"][1],
        "times_slower_by_cpu": compared["cpu_seconds"][0] / compared["cpu_seconds"][1],
    }


def table(found: dict[str, dict[str, Any]]) -> str:
    """Lay out what `largest` said of each peer."""
    rows: list[tuple[str, ...]] = [
        ("package", "largest sample", "seconds", "this package's", "times slower", "by CPU seconds", "ended by")
    ]
    for package, of in found.items():
        values = ["-"] * 4
        if "times_slower" in of:
            names = ("seconds", "seconds_of_this", "times_slower", "times_slower_by_cpu")
            values = [f"{of[name]:.1f}" for name in names]
        rows.append((package, f"{of['rows']:,}", *values, of["ended_by"] or "the last log"))
    return "\n".join(text_table(rows))


def _in_words(run: dict[str, Any]) -> str:
    where = f"{run['package']}, {run['rows']:,} rows"
    if "error" in run:
        return f"{where}: {run['error']}"
    return f"{where}: {run['seconds']:.1f} s, {run['cpu_seconds']:.1f} CPU seconds, peak {run['peak_gb']:.2f} GB"


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):  # it has just ended
        return 0


def _free_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    [available] = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(available) * 1024


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the logs and our output, about 12 GB")
    parser.add_argument("--peers", required=True, help="python of an environment with recbole and rectools")
    sizes = [1_000_000, 3_000_000, 10_000_000, 30_000_000, 100_000_000]
    parser.add_argument("--rows", type=int, nargs="+", default=sizes)
    parser.add_argument("--memory-gib", type=float, default=24)
    parser.add_argument("--limit-seconds", type=float, default=600)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/preprocessing_peers.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
