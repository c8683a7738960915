"""RecTools' SASRec and RecBole's SASRec and GRU4Rec: training speed and top-10 speed, in an environment that has them.

    peers/bin/python -m benchmarks.peers_training PEER LOG MAX_SEQ_LEN SECONDS [--device cuda]

PEER is rectools-sasrec, recbole-sasrec or recbole-gru4rec.
LOG is the folder that `benchmarks.model_speed` writes: train.parquet and validation.parquet, both user_id, item_id and
timestamp. The peer trains on the one for SECONDS (loading and validation not counted) and is measured on the other
at every tenth of them (--validations), width 64, with its own loop, loss over all items and defaults otherwise: on one
core, or on a GPU with TF32, where peak_gb is that of its tensors. Prints one line of JSON.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from glintru_model.memory import peak_resident_bytes  # needs the standard library alone

WIDTH = 64
RECBOLE_BATCH_SIZE = 512  # larger ones run no faster there and hold more logits and samples
SCORE_BATCH_SIZE = 256
MANY = 1_000_000  # epochs; the clock ends the training


def ndcg_at_10(recommended: pd.DataFrame, truth: pd.DataFrame) -> float:
    """Return the mean over users of 1 / log2(rank + 1) of the one true item, 0 beyond rank 10."""
    hits = recommended.merge(truth[["user_id", "item_id"]], on=["user_id", "item_id"])
    return float((1 / np.log2(hits["rank"] + 1)).sum() / len(truth))


class Clock:
    """Seconds and targets of training alone, and the validation figures on the way."""

    def __init__(self, limit: float, validations: int, device: str) -> None:
        self.limit, self.device = limit, device
        self.between = limit / validations
        self.seconds = 0.0
        self.targets: int | torch.Tensor = 0
        self.curve: list[tuple[float, float]] = []
        self.users_per_second = 0.0
        self._begin, self._due = 0.0, self.between

    def start(self) -> None:
        """Count from now on."""
        self._begin = time.perf_counter()

    def tick(self, targets: int | torch.Tensor) -> None:
        """Count a step, up to now; a number on the GPU stays there, for to read it would be to wait for the step."""
        now = time.perf_counter()
        self.seconds, self.targets = self.seconds + now - self._begin, self.targets + targets
        self._begin = now

    def settle(self) -> None:
        """Count what the GPU still has to do; called where training pauses, as it would slow every step."""
        if self.device == "cuda":
            torch.cuda.synchronize()
            self.tick(0)

    def is_over(self) -> bool:
        """Say whether time is up."""
        return self.seconds >= self.limit

    def is_due(self) -> bool:
        """Say whether it is time to validate, as it is when time is up."""
        return self.seconds >= self._due

    def note(self, recommended: pd.DataFrame, truth: pd.DataFrame, users_per_second: float) -> None:
        """Note a validation."""
        self.curve.append((self.seconds, ndcg_at_10(recommended, truth)))
        self.users_per_second = max(self.users_per_second, users_per_second)
        self._due = min(self.seconds + self.between, self.limit)


def run_rectools(log: Path, max_seq_len: int, clock: Clock) -> None:
    """Train by partial fits, each up to a validation, and validate by `recommend`."""
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    frame = pd.read_parquet(log / "train.parquet")
    truth = pd.read_parquet(log / "validation.parquet")
    frame[Columns.Datetime] = pd.to_datetime(frame.pop("timestamp"), unit="s")
    frame[Columns.Weight] = 1.0
    dataset = Dataset.construct(frame)
    model = SASRecModel(
        n_blocks=2,
        n_heads=2,
        n_factors=WIDTH,
        session_max_len=max_seq_len,
        loss="softmax",
        batch_size=128,
        get_trainer_func=_rectools_trainer(clock),
        recommend_batch_size=SCORE_BATCH_SIZE,
        recommend_torch_device=clock.device,
    )
    users = truth["user_id"].unique()
    while not clock.is_over():
        model.fit_partial(dataset, min_epochs=1, max_epochs=MANY)
        begin = time.perf_counter()
        recommended = model.recommend(users, dataset, k=10, filter_viewed=True)
        clock.note(recommended, truth, len(users) / (time.perf_counter() - begin))


def _rectools_trainer(clock: Clock) -> Callable[[], Any]:
    from pytorch_lightning import Callback, Trainer
    from pytorch_lightning.plugins.environments import LightningEnvironment

    class Watch(Callback):  # type: ignore[misc]
        """Counts each step from batch to batch; the trainer is copied, so the clock lies outside."""

        def on_train_epoch_start(self, *_: Any) -> None:
            clock.start()

        def on_train_batch_end(self, trainer: Any, _module: Any, _outputs: Any, batch: Any, _index: int) -> None:
            clock.tick((batch["y"] != 0).sum())
            if clock.is_due():
                trainer.should_stop = True
                raise StopIteration  # ends the epoch: one alone takes longer than the limit on some logs

        def on_train_epoch_end(self, *_: Any) -> None:
            clock.settle()

    def trainer() -> Any:
        return Trainer(
            accelerator=clock.device,
            devices=1,
            plugins=[LightningEnvironment()],  # else it looks for MPI, and fails where mpi4py finds none
            max_epochs=MANY,
            enable_checkpointing=False,
            callbacks=[Watch()],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    return trainer


def run_recbole(log: Path, max_seq_len: int, clock: Clock, model_name: str) -> None:
    """Train in the steps of RecBole's trainer, and validate by full sort and top-k."""
    from recbole.utils import get_model

    config, dataset, batches = _recbole_data(log, max_seq_len, model_name, clock.device)
    model = get_model(model_name)(config, dataset).to(config["device"])
    optimizer = torch.optim.Adam(model.parameters(), lr=config["learning_rate"])
    truth, frame = pd.read_parquet(log / "validation.parquet"), pd.read_parquet(log / "train.parquet")
    model.train()
    clock.start()
    while not clock.is_over():
        for interaction in batches:
            optimizer.zero_grad()
            loss = model.calculate_loss(interaction.to(config["device"]))
            loss.backward()
            optimizer.step()
            clock.tick(len(interaction))
            if clock.is_due():
                clock.settle()
                recommended, users_per_second = _recbole_top_10(model, dataset, frame, max_seq_len)
                clock.note(recommended, truth, users_per_second)
                model.train()
                clock.start()
            if clock.is_over():
                break


def _recbole_data(log: Path, max_seq_len: int, model_name: str, device: str) -> tuple[Any, Any, Any]:
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation

    home = Path(tempfile.mkdtemp())
    (home / "speed").mkdir()
    names = {"user_id": "user_id:token", "item_id": "item_id:token", "timestamp": "timestamp:float"}
    frame = pd.read_parquet(log / "train.parquet").rename(columns=names)
    frame.to_csv(home / "speed" / "speed.inter", sep="\t", index=False)
    settings: dict[str, Any] = {
        "data_path": str(home),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        # the log is the training part already: hold out nothing
        "eval_args": {"split": {"RS": [1, 0, 0]}, "order": "TO", "group_by": "none", "mode": "full"},
        "train_neg_sample_args": None,
        "MAX_ITEM_LIST_LENGTH": max_seq_len,
        "train_batch_size": RECBOLE_BATCH_SIZE,
        "hidden_size": WIDTH,
        "embedding_size": WIDTH,
        "loss_type": "CE",
        "use_gpu": device == "cuda",
        # what its device hangs on, and what it sets CUDA_VISIBLE_DEVICES to
        "gpu_id": os.environ.get("CUDA_VISIBLE_DEVICES", "0") if device == "cuda" else "",
        "checkpoint_dir": str(home),
    }
    arguments, sys.argv = sys.argv, sys.argv[:1]  # it reads the command line
    config = Config(model=model_name, dataset="speed", config_dict=settings)
    sys.argv = arguments
    dataset = create_dataset(config)
    batches, _, _ = data_preparation(config, dataset)
    return config, dataset, batches


def _recbole_top_10(model: Any, dataset: Any, frame: pd.DataFrame, max_seq_len: int) -> tuple[pd.DataFrame, float]:
    """Score every user's whole training history; seen items are filtered, as for all, outside of the time."""
    frame = frame.sort_values(["user_id", "timestamp"], kind="stable")
    codes = dataset.token2id(dataset.iid_field, frame["item_id"].astype(str).to_numpy())
    groups = pd.Series(codes).groupby(frame["user_id"].to_numpy()).apply(np.array)
    model.eval()
    rows, seconds = [], 0.0
    for start in range(0, len(groups), SCORE_BATCH_SIZE):
        part = groups.iloc[start : start + SCORE_BATCH_SIZE]
        histories = _recbole_histories(part, max_seq_len)
        begin = time.perf_counter()
        with torch.no_grad():
            scores = model.full_sort_predict(histories.to(model.device))
            scores.topk(10).indices.cpu()  # a recommendation is made when it is in the host's hands
        seconds += time.perf_counter() - begin
        scores[:, 0] = -torch.inf
        seen_rows = torch.from_numpy(np.repeat(np.arange(len(part)), part.map(len)))
        seen_items = torch.from_numpy(np.concatenate(part.to_list()))
        scores[seen_rows.to(model.device), seen_items.to(model.device)] = -torch.inf
        best = dataset.id2token(dataset.iid_field, scores.topk(10).indices.cpu().numpy())
        users, ranks = np.repeat(part.index, 10), np.tile(range(1, 11), len(part))
        rows.append(pd.DataFrame({"user_id": users, "item_id": best.ravel(), "rank": ranks}))
    found = pd.concat(rows)
    found["item_id"] = found["item_id"].astype(frame["item_id"].dtype)
    return found, len(groups) / seconds


def _recbole_histories(part: pd.Series, max_seq_len: int) -> Any:
    """Pad the newest items of each history as RecBole does, on the right."""
    from recbole.data.interaction import Interaction

    padded = np.zeros((len(part), max_seq_len), dtype=np.int64)
    for row, history in enumerate(part):
        kept = history[-max_seq_len:]
        padded[row, : len(kept)] = kept
    lengths = torch.tensor([min(len(history), max_seq_len) for history in part])
    return Interaction({"item_id_list": torch.tensor(padded), "item_length": lengths})


def main() -> None:
    """Run one peer on one log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=["rectools-sasrec", "recbole-sasrec", "recbole-gru4rec"])
    parser.add_argument("log", type=Path)
    parser.add_argument("max_seq_len", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--validations", type=int, default=10, help="so that the seconds to a goal can be told")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.device == "cuda":
        if not torch.cuda.is_available():  # a peer would train on the CPU
            parser.error("--device cuda: torch finds no GPU")
        torch.set_float32_matmul_precision("high")  # TF32
    torch.manual_seed(0)
    clock = Clock(options.seconds, options.validations, options.device)
    run: dict[str, Callable[[], None]] = {
        "rectools-sasrec": lambda: run_rectools(options.log, options.max_seq_len, clock),
        "recbole-sasrec": lambda: run_recbole(options.log, options.max_seq_len, clock, "SASRec"),
        "recbole-gru4rec": lambda: run_recbole(options.log, options.max_seq_len, clock, "GRU4Rec"),
    }
    run[options.peer]()
    resident_gb = peak_resident_bytes() / 1e9
    found = {
        "targets_per_second": int(clock.targets) / clock.seconds,
        "seconds_trained": clock.seconds,
        "users_per_second": clock.users_per_second,
        "peak_gb": resident_gb if options.device == "cpu" else torch.cuda.max_memory_allocated() / 1e9,
        "peak_resident_gb": resident_gb,
        "curve": clock.curve,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
