"""What the kernels in C save on a CPU: layers, training steps and rankings with them and without, side by side.

    taskset --cpu-list 0 python -m benchmarks.cpu_kernels --sequences build/benchmark/ml-1m/sequences

Layers take 37 histories of 200 events at width 64, cross-entropy as many targets over 3,416 items; steps are those of
the default settings on the given sequences, as are the rankings: a top-10 for every user, in batches of 256, and the
vector of a single history of 200 events. Each figure is the best of some repetitions, which alternate; one thread.
"""

import argparse
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.data_at_scale import describe_machine
from benchmarks.own_training import recommender, top_10_speed
from glintru_model.config import GlintruConfig, SasrecConfig
from glintru_model.data.batches import TrainingBatches
from glintru_model.data.sequences import SequenceDataset, load_sequences
from glintru_model.files import write_json
from glintru_model.models.cpu_kernels import compiled
from glintru_model.models.glintru_experts import LinearAttention
from glintru_model.models.gru import GRU
from glintru_model.models.layers import Dropout, gelu_gate
from glintru_model.models.registry import build_model
from glintru_model.models.sasrec import SasrecBlock
from glintru_model.training.cross_entropy import cross_entropy
from glintru_model.training.optimizer import build_optimizer
from glintru_model.training.shares import backward_in_pieces

LENGTH, BATCH, WIDTH, ITEMS = 200, 37, 64, 3_416


def layers() -> dict[str, Callable[[], None]]:
    """Return forward and backward of each layer that has a kernel."""
    torch.manual_seed(0)
    x = torch.randn(LENGTH, BATCH, WIDTH, requires_grad=True)
    wide = torch.randn(LENGTH, BATCH, 2 * WIDTH, requires_grad=True)
    table = (torch.randn(ITEMS + 1, WIDTH) * 0.1).requires_grad_()
    targets = torch.randint(1, ITEMS + 1, (LENGTH * BATCH,))
    gru, dropout = GRU(WIDTH), Dropout(0.2)
    linear_attention = LinearAttention(GlintruConfig(embedding_dim=WIDTH))
    block = SasrecBlock(SasrecConfig(embedding_dim=WIDTH, max_seq_len=LENGTH))
    forwards: dict[str, Callable[[], Tensor]] = {
        "GRU": lambda: gru(x),
        "linear attention with its projections": lambda: linear_attention(x, None, causal=True),
        "dropout": lambda: dropout(x),
        "GELU gate": lambda: gelu_gate(wide),
        "SASRec's block": lambda: block(x.transpose(0, 1)),
        "cross-entropy": lambda: cross_entropy(x.flatten(0, 1), table, targets),
    }
    return {name: _with_backward(forward) for name, forward in forwards.items()}


def _with_backward(forward: Callable[[], Tensor]) -> Callable[[], None]:
    def run() -> None:
        forward().sum().backward()  # type: ignore[no-untyped-call]

    return run


def step(name: str, dataset: SequenceDataset) -> Callable[[], None]:
    """Return training on the first eight batches of an epoch."""
    config = recommender(name, LENGTH, 0, "cpu")
    model = build_model(config, dataset.num_items).train()
    optimizer = build_optimizer(model, config.training)
    sizes: dict[str, Any] = {"max_seq_len": LENGTH, "batch_size": config.training.batch_size}
    batches = TrainingBatches(dataset, **sizes, every_position=True, seed=0, device="cpu")
    first = list(islice(batches.epoch(1), 8))

    def loss(batch: Any) -> Tensor:
        hidden_BLD = model.prefixes(batch.item_ids, batch.lengths)
        hidden_ND = hidden_BLD.flatten(0, 1).index_select(0, batch.rows * hidden_BLD.shape[1] + batch.positions)
        return cross_entropy(hidden_ND, model.item_embedding.weight, batch.targets, batch.weights)

    def run() -> None:
        for batch in first:
            optimizer.zero_grad()
            backward_in_pieces(loss, batch)
            optimizer.step()

    return run


def rankings(name: str, dataset: SequenceDataset) -> dict[str, Callable[[], object]]:
    """Return a top-10 for every user, and the encoding of one history."""
    model = build_model(recommender(name, LENGTH, 0, "cpu"), dataset.num_items).eval()
    item_ids, lengths = torch.randint(1, dataset.num_items + 1, (1, LENGTH)), torch.tensor([LENGTH])

    def encode() -> None:
        with torch.no_grad():
            model.last_hidden(item_ids, lengths)

    return {
        f"top-10 of every user, {name}": lambda: top_10_speed(model, dataset),
        f"one history, {name}": encode,
    }


def compare(run: Callable[[], object], repetitions: int) -> dict[str, float]:
    """Return the best times, in ms, with the kernels and without."""
    ways = {"with_kernels": compiled.kernels, "without": lambda: None}
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(repetitions):
        for way, kernels in ways.items():
            with patch.object(compiled, "kernels", kernels):
                begin = time.perf_counter()
                run()
            best[way] = min(best[way], (time.perf_counter() - begin) * 1e3)
    return best


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=Path, required=True, help="folder that build-sequences wrote")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/cpu_kernels.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if compiled.kernels() is None:
        raise SystemExit("there is nothing to compare without a C compiler")
    dataset = load_sequences(options.sequences)
    runs: dict[str, tuple[Callable[[], object], int]] = {name: (run, 40) for name, run in layers().items()}
    for name in ("glintru", "sasrec"):
        runs[f"eight steps of {name}"] = step(name, dataset), 8
        runs |= {title: (run, 8) for title, run in rankings(name, dataset).items()}
    results: dict[str, Any] = {"hardware": describe_machine(), "milliseconds": {}}
    for name, (run, repetitions) in runs.items():
        results["milliseconds"][name] = best = compare(run, repetitions)
        ratio = best["without"] / best["with_kernels"]
        print(f"{name:40}{best['with_kernels']:8.1f} ms, without {best['without']:8.1f} ms, {ratio:.2f} times")
    write_json(options.output, results)


if __name__ == "__main__":
    main()
