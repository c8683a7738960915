"""RecTools' SASRec and RecBole's SASRec and GRU4Rec: training speed and top-10 speed, in an environment that has them.

    peers/bin/python benchmarks/peers_training.py rectools-sasrec|recbole-sasrec|recbole-gru4rec LOG MAX_SEQ_LEN SECONDS

LOG is the folder that `benchmarks.model_speed` writes: train.parquet and validation.parquet, both user_id, item_id and
timestamp. The peer trains on the one for SECONDS (loading not counted) and is measured on the other, width 64, with its
own loop, loss over all items and defaults otherwise. Prints one line of JSON.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

WIDTH = 64
RECTOOLS_BATCHES = 40  # of a partial fit, after which it is validated
RECBOLE_BATCH_SIZE = 512  # larger ones run no faster there and hold more logits and samples
SCORE_BATCH_SIZE = 256


def ndcg_at_10(recommended: pd.DataFrame, truth: pd.DataFrame) -> float:
    """Return the mean over users of 1 / log2(rank + 1) of the one true item, 0 beyond rank 10."""
    hits = recommended.merge(truth[["user_id", "item_id"]], on=["user_id", "item_id"])
    return float((1 / np.log2(hits["rank"] + 1)).sum() / len(truth))


class Clock:
    """Seconds and targets of training alone, and the validation figures on the way."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.seconds, self.targets = 0.0, 0
        self.curve: list[tuple[float, float]] = []

    def is_over(self) -> bool:
        """Say whether time is up."""
        return self.seconds >= self.limit


def run_rectools(log: Path, max_seq_len: int, clock: Clock) -> float:
    """Train by partial fits; returns users per second of `recommend`."""
    from pytorch_lightning import Callback, Trainer
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    class Watch(Callback):  # type: ignore[misc]
        """Times each step from batch to batch; the trainer is copied, so the clock lies outside."""

        def on_train_epoch_start(self, *_: Any) -> None:
            self.begin = time.perf_counter()

        def on_train_batch_end(self, _trainer: Any, _module: Any, _outputs: Any, batch: Any, _index: int) -> None:
            now = time.perf_counter()
            clock.seconds += now - self.begin
            clock.targets += int((batch["y"] != 0).sum())
            self.begin = now
            if clock.seconds >= clock.limit:
                raise StopIteration

    def trainer() -> Any:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        return Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=1,
            limit_train_batches=RECTOOLS_BATCHES,
            enable_checkpointing=False,
            callbacks=[Watch()],
            **quiet,
        )

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
        get_trainer_func=trainer,
        recommend_batch_size=SCORE_BATCH_SIZE,
        recommend_torch_device="cpu",
    )
    users = truth["user_id"].unique()
    while True:
        model.fit_partial(dataset, min_epochs=1, max_epochs=1)
        begin = time.perf_counter()
        recommended = model.recommend(users, dataset, k=10, filter_viewed=True)
        users_per_second = len(users) / (time.perf_counter() - begin)
        clock.curve.append((clock.seconds, ndcg_at_10(recommended, truth)))
        if clock.is_over():
            return float(users_per_second)


def run_recbole(log: Path, max_seq_len: int, clock: Clock, model_name: str) -> float:
    """Train in the steps of RecBole's trainer; returns users per second of full sort and top-k."""
    from recbole.utils import get_model

    config, dataset, batches = _recbole_data(log, max_seq_len, model_name)
    model = get_model(model_name)(config, dataset)
    optimizer = torch.optim.Adam(model.parameters(), lr=config["learning_rate"])
    model.train()
    begin = time.perf_counter()
    while not clock.is_over():
        for interaction in batches:
            optimizer.zero_grad()
            loss = model.calculate_loss(interaction)
            loss.backward()
            optimizer.step()
            now = time.perf_counter()
            clock.seconds, begin = clock.seconds + now - begin, now
            clock.targets += len(interaction)
            if clock.is_over():
                break
        begin = time.perf_counter()  # an epoch's end is no time to leave out, its validation is
    truth, frame = pd.read_parquet(log / "validation.parquet"), pd.read_parquet(log / "train.parquet")
    recommended, users_per_second = _recbole_top_10(model, dataset, frame, max_seq_len)
    clock.curve.append((clock.seconds, ndcg_at_10(recommended, truth)))
    return users_per_second


def _recbole_data(log: Path, max_seq_len: int, model_name: str) -> tuple[Any, Any, Any]:
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
        "use_gpu": False,
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
    from recbole.data.interaction import Interaction

    frame = frame.sort_values(["user_id", "timestamp"], kind="stable")
    codes = dataset.token2id(dataset.iid_field, frame["item_id"].astype(str).to_numpy())
    groups = pd.Series(codes).groupby(frame["user_id"].to_numpy()).apply(np.array)
    model.eval()
    rows, seconds = [], 0.0
    for start in range(0, len(groups), SCORE_BATCH_SIZE):
        part = groups.iloc[start : start + SCORE_BATCH_SIZE]
        padded = np.zeros((len(part), max_seq_len), dtype=np.int64)
        for row, history in enumerate(part):
            kept = history[-max_seq_len:]
            padded[row, : len(kept)] = kept
        lengths = torch.tensor([min(len(history), max_seq_len) for history in part])
        begin = time.perf_counter()
        with torch.no_grad():
            scores = model.full_sort_predict(
                Interaction({"item_id_list": torch.tensor(padded), "item_length": lengths})
            )
            scores.topk(10)
        seconds += time.perf_counter() - begin
        scores[:, 0] = -torch.inf
        for row, history in enumerate(part):
            scores[row, history] = -torch.inf
        best = dataset.id2token(dataset.iid_field, scores.topk(10).indices.numpy())
        rows.append(
            pd.DataFrame(
                {
                    "user_id": np.repeat(part.index, 10),
                    "item_id": best.ravel(),
                    "rank": np.tile(range(1, 11), len(part)),
                }
            )
        )
    found = pd.concat(rows)
    found["item_id"] = found["item_id"].astype(frame["item_id"].dtype)
    return found, len(groups) / seconds


def main() -> None:
    """Run one peer on one log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=["rectools-sasrec", "recbole-sasrec", "recbole-gru4rec"])
    parser.add_argument("log", type=Path)
    parser.add_argument("max_seq_len", type=int)
    parser.add_argument("seconds", type=float)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    clock = Clock(options.seconds)
    run: dict[str, Callable[[], float]] = {
        "rectools-sasrec": lambda: run_rectools(options.log, options.max_seq_len, clock),
        "recbole-sasrec": lambda: run_recbole(options.log, options.max_seq_len, clock, "SASRec"),
        "recbole-gru4rec": lambda: run_recbole(options.log, options.max_seq_len, clock, "GRU4Rec"),
    }
    users_per_second = run[options.peer]()
    print(
        json.dumps(
            {
                "targets_per_second": clock.targets / clock.seconds,
                "seconds_trained": clock.seconds,
                "users_per_second": users_per_second,
                "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
                "curve": clock.curve,
            }
        )
    )


if __name__ == "__main__":
    main()
