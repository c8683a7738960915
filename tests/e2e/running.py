"""What the tests of the whole pipeline start it with: a command, settings, and a log."""

import csv
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

SETTINGS = {
    "name": "tiny",
    "models": {
        model: {
            "architecture": {"max_seq_len": 10, "embedding_dim": 8, "num_heads": 2},
            "training": {"max_epochs": 2, "batch_size": 32},
        }
        for model in ("glintru", "sasrec")
    },
    "tuning": {"num_trials": 2, "num_workers": 2, "max_epochs": 1},
    "evaluation": {"bootstrap_samples": 100},
}


@dataclass
class Outcome:
    """One run of the command."""

    code: int
    out: str
    err: str


def run_pipeline(*options) -> Outcome:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "KFP_"))}
    command = [sys.executable, "-m", "pipelines.run", *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


def write_log(path, num_users, columns=("user_id", "item_id", "timestamp")):
    """Write a CSV in which users walk around a ring of 20 items."""
    rng = random.Random(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for user in range(num_users):
            item = rng.randrange(20)
            for step in range(8):
                writer.writerow([user, f"item {item}", 1_600_000_000 + step])
                item = (item + rng.choice((1, 1, 1, 2))) % 20
