"""One process of a training by several, as the tests have torchrun start it: `in_processes.py JOB.json`.

A job is a list of trainings: `config`, the script of validation values (the first process's; the others would fail if
they were asked), and what shall go wrong. Each process leaves its results beside the job.
"""

import json
import os
import signal
import sys
import time
from dataclasses import asdict
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch.distributed as dist

from glintru_model.config_io import parse_recommender
from glintru_model.data.sequences import SequenceDataset, Vocabulary
from glintru_model.errors import TrainingError
from glintru_model.training.trainer import train

_ITEMS = 20


class InterruptionError(Exception):
    """Ends a training between two epochs."""


def dataset():
    """Thirty users' histories, the same in every process."""
    random = np.random.default_rng(0)
    lengths = random.integers(4, 12, 30)
    counts = np.full(_ITEMS, 5)
    return SequenceDataset(
        user_ids=pa.array(range(30)),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        item_ids=random.integers(1, _ITEMS + 1, int(lengths.sum())).astype(np.int32),
        train_ends=lengths - 2,
        validation_ends=lengths - 1,
        vocabulary=Vocabulary(pa.array(range(1, _ITEMS + 1)), counts, counts),
        manifest={"dataset_hash": "tiny"},
    )


def run(job):
    """Train once and say how it went."""
    rank, values = int(os.environ.get("RANK", "0")), iter(job["values"])

    def validate(_model):
        assert rank == 0
        return {"ndcg_at_10": next(values)}

    def on_epoch(result):
        assert rank == 0
        if result.epoch == job.get("interrupted_after"):
            raise InterruptionError

    checkpoints = job.get("checkpoints")
    model, result = train(
        parse_recommender(json.dumps(job["config"]), "job"),
        dataset(),
        validate=validate,
        on_epoch=on_epoch,
        checkpoint_dir=Path(checkpoints) if checkpoints else None,
    )
    weights = {name: tensor.double().sum().item() for name, tensor in model.state_dict().items()}
    return {**asdict(result), "weights": weights}


def main(path):
    """Do every training of a job."""
    results = []
    for job in json.loads(Path(path).read_text()):
        results.append(run(job))
        Path(f"{path}.{os.environ['RANK']}").write_text(json.dumps(results))


def fail(how):
    """Be one of two processes, of which the second ends badly at its third step, while the first waits for it."""
    add_up, steps = dist.all_reduce, count(1)

    def all_reduce(tensor):
        if next(steps) == 3 and os.environ["RANK"] == "1":
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise TrainingError("loss nan")
        return add_up(tensor)

    dist.all_reduce = all_reduce
    settings = {"name": "sasrec", "training": {"device": "cpu", "max_epochs": 9, "batch_size": 4}}
    return run({"config": settings, "values": [0.1] * 9})


def wait(folder):
    """Be a process that is still at work when it is ended."""
    Path(folder, str(os.getpid())).touch()
    time.sleep(60)


if __name__ == "__main__":
    main(sys.argv[1])
