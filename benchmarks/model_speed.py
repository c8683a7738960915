"""This package's models against RecTools and RecBole: training and top-10 speed, memory, seconds to a given NDCG@10.

    python -m benchmarks.model_speed --peers peers/bin/python --log ml-1m.parquet:200:0.1 beauty.parquet:50:0.02

Every model trains on every log (PATH:MAX_SEQ_LEN:GOAL) in a process of its own, one after the other on the same single
core, or on a GPU (--device cuda), at width 64 with cross-entropy over the whole catalogue, on the leave-one-out
training part, for the same time; GOAL is the validation NDCG@10 to which the seconds are told. Prints a line each and
tables in the end, with what is asked for and whether it is met; writes JSON, and a page with the tables and plots.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.data_at_scale import describe_machine
from benchmarks.gpu import describe_gpu
from benchmarks.model_speed_report import NAMES, OWN, in_words, text_tables, write_page
from glintru_model.config import IngestConfig, SequencesConfig
from glintru_model.data.build import build_sequences
from glintru_model.data.ingest import ingest
from glintru_model.data.sequences import load_sequences
from glintru_model.files import atomic_file, write_json
from glintru_model.progress import say


def main() -> None:
    """Run every model on every log and write the results."""
    options = _options()
    hardware = describe_machine() | (describe_gpu() if options.device == "cuda" else {})
    results: dict[str, Any] = {"hardware": hardware, "seconds": options.seconds, "logs": {}}
    for log in options.log:
        path, max_seq_len, goal = log.split(":")
        folder = options.work / Path(path).stem
        dataset = prepare(Path(path), folder)
        runs: dict[str, Any] = {}
        for name in NAMES:
            source = folder / "sequences" if name in OWN else folder
            arguments = [str(source), max_seq_len, str(options.seconds), "--device", options.device]
            runs[name] = _run(name, arguments, options)
            say(f"{Path(path).stem}, {NAMES[name]}: {in_words(runs[name], float(goal))}")
        settings = {"max_seq_len": int(max_seq_len), "goal": float(goal)}
        results["logs"][Path(path).stem] = {**dataset, **settings, "runs": runs}
        write_json(options.output, results)
    page = options.work / "model_speed.html"
    write_page(results, page)
    print(text_tables(results))
    say(f"results: {options.output}; plots: {page}")


def prepare(log: Path, folder: Path) -> dict[str, int]:
    """Write the log's sequences, and its training events and validation targets as peers read them."""
    if not (folder / "sequences").exists():
        ingest(IngestConfig(source=str(log)), folder / "interactions", folder / "downloads")
        build_sequences(folder / "interactions", folder / "sequences", SequencesConfig())
    dataset = load_sequences(folder / "sequences")
    users = np.repeat(np.arange(dataset.num_users), np.diff(dataset.offsets))
    places = np.arange(len(users)) - dataset.offsets[users]
    parts = {"train": places < dataset.train_ends[users], "validation": places == dataset.train_ends[users]}
    for name, rows in parts.items():
        columns = {"user_id": users[rows], "item_id": dataset.item_ids[rows], "timestamp": places[rows]}
        with atomic_file(folder / f"{name}.parquet") as temporary:
            pq.write_table(pa.table(columns), temporary)
    return {"num_users": dataset.num_users, "num_items": dataset.num_items, "num_train": int(parts["train"].sum())}


def _run(name: str, arguments: list[str], options: argparse.Namespace) -> dict[str, Any]:
    own = [sys.executable, "-m", "benchmarks.own_training", name]
    command = own if name in OWN else [options.peers, "-m", "benchmarks.peers_training", name]
    pinned = ["taskset", "--cpu-list", str(options.core)] if options.device == "cpu" else []
    done = subprocess.run(
        [*pinned, *command, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    if done.returncode < 0:  # as one that wants more memory than there is
        return {"error": f"ended by signal {-done.returncode}"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1][:300]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", nargs="+", required=True, metavar="PATH:MAX_SEQ_LEN:GOAL")
    parser.add_argument("--peers", required=True, help="python of an environment with benchmarks/peers.txt")
    parser.add_argument("--work", type=Path, default=Path("build/benchmark"))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--core", type=int, default=0, help="of the CPU; on a GPU none is prescribed")
    parser.add_argument("--seconds", type=float, default=150, help="of training")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/model_speed.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
