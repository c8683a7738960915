"""A training step on a GPU: which of precision, kernels, `torch.compile` and CUDA graph pay.

    python -m benchmarks.gpu_step SEQUENCES --config pipelines/configs/ml-1m.yaml

Takes the run's settings and its first batches. Milliseconds are means over the batches of an epoch's beginning; a graph
is bound to the shape of one batch, so that it is compared with the plain step on that batch alone, both by the
median. Prints a line each and writes benchmarks/results/gpu_step.json.
"""

import argparse
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.gpu import describe_gpu, milliseconds
from glintru_model.config import GlintruRecommender, SasrecRecommender
from glintru_model.config_io import load_pipeline_config
from glintru_model.data.batches import Batch, TrainingBatches
from glintru_model.data.sequences import SequenceDataset, load_sequences
from glintru_model.files import write_json
from glintru_model.models import gru
from glintru_model.models.registry import build_model
from glintru_model.progress import say
from glintru_model.training import cross_entropy as chunked
from glintru_model.training.cross_entropy import cross_entropy

NUM_BATCHES = 40


class Step:
    """Forward, loss, backward, clipping and the optimiser; the graphs of the trainer end with backward."""

    def __init__(self, config: GlintruRecommender | SasrecRecommender, num_items: int, precision: torch.dtype) -> None:
        torch.manual_seed(0)
        self.model = build_model(config, num_items).cuda().train()
        self.precision, self.clip = precision, config.training.gradient_clip_norm
        self.prefixes: Callable[..., torch.Tensor] = self.model.prefixes
        # a graph needs the optimiser's counters on the device
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True, capturable=True)

    def __call__(self, batch: Batch) -> None:
        self.optimizer.zero_grad()
        with torch.autocast("cuda", self.precision, enabled=self.precision != torch.float32):
            places = batch.rows * batch.item_ids.shape[1] + batch.positions
            hidden = self.prefixes(batch.item_ids, batch.lengths).flatten(0, 1).index_select(0, places)
            loss = cross_entropy(hidden, self.model.item_embedding.weight, batch.targets)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()


def main() -> None:
    """Measure both models."""
    options = _options()
    torch.set_float32_matmul_precision("high")
    config, dataset = load_pipeline_config(options.config), load_sequences(options.sequences)
    rows: list[dict[str, Any]] = []
    for recommender in (config.models.glintru, config.models.sasrec):
        for row in _variants(recommender, dataset, with_compile=options.compile):
            rows.append({"model": recommender.name} | row)
            say(str(rows[-1]))
            write_json(options.output, {"hardware": describe_gpu(), "config": config.name, "rows": rows})


def _variants(
    recommender: GlintruRecommender | SasrecRecommender, dataset: SequenceDataset, *, with_compile: bool
) -> list[dict[str, Any]]:
    training = recommender.training
    batches = TrainingBatches(
        dataset,
        max_seq_len=recommender.architecture.max_seq_len,
        batch_size=training.batch_size,
        every_position=True,
        seed=0,
        device="cuda",
    )
    first = list(islice(batches.epoch(1), NUM_BATCHES))
    num_items, found = dataset.num_items, []
    for precision in (torch.float32, torch.bfloat16):
        settings = {"precision": str(precision)[6:]}
        step = Step(recommender, num_items, precision)
        found.append(settings | {"variant": "plain"} | _over(step, first))
        found.append(settings | {"variant": "CUDA graph, one batch"} | _as_graph(step, first[0]))
        if with_compile:
            found.append(settings | {"variant": "torch.compile"} | _compiled(step, first))
    with patch.object(chunked, "has_kernels", lambda device: False):
        settings, step = {"precision": "float32"}, Step(recommender, num_items, torch.float32)
        found.append(settings | {"variant": "CUDA graph, cross-entropy by torch"} | _as_graph(step, first[0]))
    if recommender.name == "glintru":
        with patch.object(gru, "has_kernels", lambda device: False):
            step = Step(recommender, num_items, torch.float32)
            found.append({"precision": "float32", "variant": "GRU by cuDNN"} | _over(step, first))
    return found


def _over(step: Step, batches: list[Batch]) -> dict[str, float]:
    """Run all batches twice; return a step's milliseconds the second time, one after the other and each waited for."""
    seconds = 0.0
    for _ in range(2):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for batch in batches:
            step(batch)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
    waited = [milliseconds(lambda batch=batch: step(batch), 3) for batch in batches[:5]]  # type: ignore[misc]
    return {"milliseconds": 1e3 * seconds / len(batches), "waited_milliseconds": sum(waited) / len(waited)}


def _as_graph(step: Step, batch: Batch) -> dict[str, Any]:
    plain = milliseconds(lambda: step(batch))
    try:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step(batch)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        begin = time.perf_counter()
        with torch.cuda.graph(graph):
            step(batch)
        capture = time.perf_counter() - begin
        return {"milliseconds": milliseconds(graph.replay), "plain_milliseconds": plain, "capture_seconds": capture}
    except RuntimeError as error:
        return {"error": str(error).splitlines()[0][:200], "plain_milliseconds": plain}


def _compiled(step: Step, batches: list[Batch]) -> dict[str, Any]:
    begin = time.perf_counter()
    step.prefixes = torch.compile(step.model.prefixes, dynamic=True)
    try:
        for batch in batches[:8]:
            step(batch)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
        return _over(step, batches) | {"first_8_steps_seconds": seconds}
    except Exception as error:  # whatever a compiler may raise is a finding
        return {"error": (str(error).splitlines() or [type(error).__name__])[0][:200]}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sequences", type=Path)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too, which takes minutes")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/gpu_step.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
