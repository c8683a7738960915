"""Parquet to finished sequences at 10, 30 and 100 M interactions: rate, CPU, peak memory; each size in its own process.

    python -m benchmarks.data_at_scale --work /scratch [--rows 10000000 30000000 100000000] [--output results.json]

A second mode measures one run and prints it as JSON; the first calls it.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.scale_log import write_scale_log
from glintru_model.config import IngestConfig, SequencesConfig
from glintru_model.data.build import build_sequences
from glintru_model.data.ingest import ingest
from glintru_model.files import write_json
from glintru_model.memory import peak_resident_bytes
from glintru_model.progress import say

_K_CORE = 5


def main() -> None:
    """Run the benchmark and write its results."""
    options = _options()
    if options.single:
        print(json.dumps(measure(options.single, options.work, options.memory_gib, options.split)))
        return
    results: dict[str, Any] = {"hardware": describe_machine(), "k_core": _K_CORE, "memory_gib": options.memory_gib}
    results["runs"] = []
    for rows in options.rows:
        log = options.work / f"log-{rows}"
        if not log.exists():
            write_scale_log(log, rows)
        for split in ("leave_one_out", "temporal"):
            command = [sys.executable, "-m", "benchmarks.data_at_scale", "--work", str(options.work)]
            command += ["--single", str(log), "--memory-gib", str(options.memory_gib), "--split", split]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            run = {"rows": rows, "split": split, **json.loads(done.stdout.splitlines()[-1])}
            results["runs"].append(run)
            say(
                f"{rows:,} rows, {split}: {run['seconds']:.1f} s, {rows / run['seconds']:,.0f} interactions/s, "
                f"{run['cpu_seconds']:.1f} CPU seconds, peak {run['peak_gb']:.2f} GB"
            )
    write_json(options.output, results)


def measure(log: Path, work: Path, memory_gib: float, split: str) -> dict[str, Any]:
    """Ingest and build once; returns seconds, CPU seconds, peak memory of the process and what came out."""
    output, load = work / "run", os.getloadavg()[0]
    begin, cpu = time.perf_counter(), time.process_time()
    ingest(IngestConfig(source=str(log), memory_gib=memory_gib), output / "interactions", output / "downloads")
    middle = time.perf_counter()
    config = SequencesConfig.model_validate({"split": split, "k_core": _K_CORE, "memory_gib": memory_gib})
    manifest = build_sequences(output / "interactions", output / "sequences", config)
    end, cpu_end = time.perf_counter(), time.process_time()
    shutil.rmtree(output)
    return {
        "seconds": end - begin,
        "ingest_seconds": middle - begin,
        "build_seconds": end - middle,
        "cpu_seconds": cpu_end - cpu,
        "peak_gb": peak_resident_bytes() / 1e9,
        "load_before": load,
        "steps": manifest["steps"],
        "dataset_hash": manifest["dataset_hash"],
    }


def describe_machine() -> dict[str, Any]:
    """Name the processor, its cores and the memory."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "python": platform.python_version(),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for logs and results, about 8 GB for 100 M rows"
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000_000, 30_000_000, 100_000_000])
    parser.add_argument("--memory-gib", type=float, default=5.0)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/data_at_scale.json"))
    parser.add_argument("--single", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--split", default="leave_one_out", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
