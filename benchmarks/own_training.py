"""One of this package's models: training speed, top-10 speed and share of the core's matrix rate, in a process alone.

    python -m benchmarks.own_training MODEL SEQUENCES MAX_SEQ_LEN SECONDS [--device cuda]

MODEL is glintru, glintru-paper or sasrec, or one of them with -bfloat16 for that precision. It trains on the folder of
sequences for SECONDS, inside an epoch too, at width 64 with default settings; the epochs' weights are validated
afterwards. Prints one line of JSON.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.operations import training_operations
from glintru_model.config import (
    GlintruConfig,
    GlintruRecommender,
    SasrecConfig,
    SasrecRecommender,
    TrainingConfig,
)
from glintru_model.data.sequences import SequenceDataset, load_sequences
from glintru_model.evaluation.metrics import metrics_from_ranks
from glintru_model.evaluation.ranking import rank_targets
from glintru_model.memory import peak_resident_bytes
from glintru_model.models.base import SequentialRecommender
from glintru_model.models.best import best_first
from glintru_model.models.scorer import ModelScorer
from glintru_model.training.trainer import EpochResult, train

MODELS = ("glintru", "glintru-paper", "sasrec")
WIDTH = 64
BFLOAT16 = "-bfloat16"  # ends the name of a model that trains in that precision
SCORE_BATCH_SIZE = 256
RANKINGS = 10  # as often as a peer validates
_MATRIX = 2048


def matrix_rate(device: str) -> float:
    """Return the best of five float32 products of 2048 x 2048, in operations per second, of this thread or the GPU."""
    left, right, out = torch.rand(3, _MATRIX, _MATRIX, device=device).unbind()
    seconds = []
    for _ in range(5):
        _wait_for(device)
        begin = time.perf_counter()
        torch.mm(left, right, out=out)
        _wait_for(device)
        seconds.append(time.perf_counter() - begin)
    return 2 * _MATRIX**3 / min(seconds)


def _wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def recommender(name: str, max_seq_len: int, seconds: float, device: str) -> GlintruRecommender | SasrecRecommender:
    """Return the default settings at the benchmark's width."""
    sizes: dict[str, Any] = {"embedding_dim": WIDTH, "max_seq_len": max_seq_len}
    training = TrainingConfig(
        max_seconds=seconds,
        max_epochs=10_000,
        patience=10_000,
        device=device,
        precision="bfloat16" if name.endswith(BFLOAT16) else "float32",
        num_threads=1,
    )
    model = name.removesuffix(BFLOAT16)
    if model == "sasrec":
        return SasrecRecommender(architecture=SasrecConfig(**sizes), training=training)
    sizes["variant"] = "paper" if model == "glintru-paper" else "causal"
    return GlintruRecommender(architecture=GlintruConfig(**sizes), training=training)


def users_per_second(model: SequentialRecommender, dataset: SequenceDataset) -> float:
    """Return the best speed of some, since a peer's is its best, too: a server's core is not always as fast."""
    return max(top_10_speed(model, dataset) for _ in range(RANKINGS))


def top_10_speed(model: SequentialRecommender, dataset: SequenceDataset) -> float:
    """Score every user's training history and take the best ten, the longest first as evaluation does."""
    cases = dataset.cases("validation")
    cases = cases.select(np.argsort(cases.history_starts - cases.history_ends, kind="stable"))
    scorer, begin = ModelScorer(model), time.perf_counter()
    for start in range(0, len(cases), SCORE_BATCH_SIZE):
        part = cases.select(slice(start, start + SCORE_BATCH_SIZE))
        scores_BV1 = scorer.score_histories(dataset.item_ids, part.history_starts, part.history_ends)
        best_first(scores_BV1, 10)[0].cpu()  # a recommendation is made when it is in the host's hands
    return len(cases) / (time.perf_counter() - begin)


class Watch:
    """Keeps the weights of each epoch, so that they are validated when the training's time is over; counts meanwhile.

    A validation between epochs would be taken from the time that the training has.
    """

    def __init__(self, folder: Path, device: str) -> None:
        self.folder, self.device = folder, device
        self.rates = [matrix_rate(device)]  # which swing by a third within minutes
        self.epochs: list[tuple[float, float]] = []  # seconds of training, targets
        self._keeping = 0.0

    def keep(self, model: SequentialRecommender) -> dict[str, float]:
        """Take the place of validation: take a matrix rate, write the weights, and let the last epoch be the best."""
        begin = time.perf_counter()
        self.rates.append(matrix_rate(self.device))
        torch.save(model.state_dict(), self.folder / f"{len(self.epochs)}.pt")
        self._keeping = time.perf_counter() - begin
        return {"ndcg_at_10": float(len(self.epochs))}

    def on_epoch(self, result: EpochResult) -> None:
        """Note the epoch."""
        seconds = result.seconds - self._keeping
        self.epochs.append((seconds, seconds * result.targets_per_second))

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return sum(seconds for seconds, _ in self.epochs)

    def curve(self, model: SequentialRecommender, dataset: SequenceDataset) -> list[tuple[float, float]]:
        """Return the seconds of training up to each epoch and NDCG@10 on the validation targets after it."""
        cases, points, seconds = dataset.cases("validation"), [], 0.0
        for epoch, (more, _) in enumerate(self.epochs):
            model.load_state_dict(torch.load(self.folder / f"{epoch}.pt", weights_only=True))
            result = rank_targets(ModelScorer(model), dataset, cases, filter_seen=True, batch_size=SCORE_BATCH_SIZE)
            seconds += more
            points.append((seconds, float(metrics_from_ranks(result.ranks, (10,))["ndcg_at_10"].mean())))
        return points


def measure(name: str, dataset: SequenceDataset, max_seq_len: int, seconds: float, device: str) -> dict[str, Any]:
    """Train, and return what `benchmarks.peers_training` returns for a peer, and the share of the matrix rate."""
    config = recommender(name, max_seq_len, seconds, device)
    with tempfile.TemporaryDirectory() as folder:
        watch = Watch(Path(folder), device)
        model, _ = train(config, dataset, validate=watch.keep, on_epoch=watch.on_epoch)
        curve = watch.curve(model, dataset)
    speed = sum(targets for _, targets in watch.epochs) / watch.seconds
    lengths = [min(end - 1, max_seq_len) for end in dataset.train_ends.tolist() if end > 1]
    operations = training_operations(config.architecture, dataset.num_items, lengths)
    rate = float(np.mean(watch.rates))
    return {
        "targets_per_second": speed,
        "seconds_trained": watch.seconds,
        "users_per_second": users_per_second(model, dataset),
        "peak_gb": (torch.cuda.max_memory_allocated() if device == "cuda" else peak_resident_bytes()) / 1e9,
        "curve": curve,
        "operations_per_target": operations,
        "matrix_rate": rate,
        "matrix_rates": watch.rates,
        "share_of_matrix_rate": speed * operations / rate,
    }


def main() -> None:
    """Run one model on one log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=[model + end for model in MODELS for end in ("", BFLOAT16)])
    parser.add_argument("sequences", type=Path)
    parser.add_argument("max_seq_len", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.device == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as in training
    dataset = load_sequences(options.sequences)
    print(json.dumps(measure(options.model, dataset, options.max_seq_len, options.seconds, options.device)))


if __name__ == "__main__":
    main()
