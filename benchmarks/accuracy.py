"""Both models of a ready-made run, trained with several seeds: test NDCG@10 and Recall@10 by full ranking.

    python -m benchmarks.accuracy --config pipelines/configs/ml-1m.yaml --data ml-1m.parquet --seeds 0 1 2

The epoch is chosen on validation, the test targets are ranked once, seen items are filtered. One thread, or a GPU
(--device cuda). A run that was stopped goes on from its checkpoint. Writes benchmarks/results/accuracy.json after every
run; one that stands there with the settings of today is not repeated, and what other logs have there is kept.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.data_at_scale import describe_machine
from benchmarks.gpu import describe_gpu
from glintru_model.config import GlintruRecommender, IngestConfig, PipelineConfig, SasrecRecommender
from glintru_model.config_io import load_pipeline_config
from glintru_model.data.build import build_sequences
from glintru_model.data.ingest import ingest
from glintru_model.data.sequences import SequenceDataset, load_sequences
from glintru_model.evaluation.metrics import metrics_from_ranks
from glintru_model.evaluation.ranking import rank_targets
from glintru_model.files import read_json, write_json
from glintru_model.models.base import SequentialRecommender
from glintru_model.models.scorer import ModelScorer
from glintru_model.progress import say
from glintru_model.training.trainer import train

Recommender = GlintruRecommender | SasrecRecommender

METRICS = ("ndcg_at_10", "recall_at_10")
BATCH_SIZE = 256


def main() -> None:
    """Run what is missing and write all results."""
    options = _options()
    torch.set_num_threads(1)
    config = load_pipeline_config(options.config)
    dataset = prepare(config, options.data, options.work / config.name)
    for seed in options.seeds:
        for model in options.models:
            recommender = with_seed(getattr(config.models, model), seed, options.device)
            if seed not in seeds_done(options.output, dataset, config.name, recommender):
                run = measure(recommender, dataset, options.work / config.name / f"{model}-{seed}")
                keep(options.output, dataset, config.name, run)
    for model in options.models:
        found = read_json(options.output)[config.name][model]
        say(f"{config.name}, {model}, {len(found['seeds'])} seeds: " + str({name: found[name] for name in METRICS}))


def prepare(config: PipelineConfig, data: Path, folder: Path) -> SequenceDataset:
    """Build the run's sequences once."""
    if not (folder / "sequences").exists():
        ingest(IngestConfig(source=str(data)), folder / "interactions", folder / "downloads")
        build_sequences(folder / "interactions", folder / "sequences", config.sequences)
    return load_sequences(folder / "sequences")


def with_seed(recommender: Recommender, seed: int, device: str = "cpu") -> Recommender:
    """Return the run's settings with this seed, for one thread of a CPU or a GPU."""
    training = recommender.training.model_copy(update={"seed": seed, "num_threads": 1, "device": device})
    return recommender.model_copy(update={"training": training})


def measure(config: Recommender, dataset: SequenceDataset, checkpoints: Path) -> dict[str, Any]:
    """Train, and rank the test targets by the best epoch's weights."""

    def metrics(model: SequentialRecommender, split: Any) -> dict[str, float]:
        cases = dataset.cases(split)
        result = rank_targets(ModelScorer(model), dataset, cases, filter_seen=True, batch_size=BATCH_SIZE)
        return {name: float(metrics_from_ranks(result.ranks, (10,))[name].mean()) for name in METRICS}

    model, result = train(
        config, dataset, validate=lambda model: metrics(model, "validation"), checkpoint_dir=checkpoints
    )
    return {
        "recommender": config.model_dump(mode="json"),
        "hardware": describe_machine() | (describe_gpu() if config.training.device == "cuda" else {}),
        "validation": result.best_metrics,
        "test": metrics(model, "test"),
        "best_epoch": result.best_epoch,
        "epochs": len(result.history),
        "seconds": result.seconds,
        "seconds_to_best": sum(epoch.seconds for epoch in result.history[: result.best_epoch]),
        "targets_per_second": float(np.median([epoch.targets_per_second for epoch in result.history])),
        "parameters": result.num_parameters,
        "peak_bytes": result.peak_memory_bytes,
    }


def seeds_done(output: Path, dataset: SequenceDataset, name: str, config: Recommender) -> list[int]:
    """List the seeds that were measured with these settings on this log."""
    return [int(seed) for seed in _comparable(_of_log(output, dataset, name), config.model_dump(mode="json"))]


def keep(output: Path, dataset: SequenceDataset, name: str, run: dict[str, Any]) -> None:
    """Add a run to those of the same settings and write mean and standard deviation over seeds."""
    log = _of_log(output, dataset, name)
    runs = _comparable(log, run["recommender"]) | {str(run["recommender"]["training"]["seed"]): run}
    found: dict[str, Any] = {"seeds": dict(sorted(runs.items()))}
    for metric in METRICS:
        values = [run["test"][metric] for run in runs.values()]
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        found[metric] = {"mean": float(np.mean(values)), "sd": sd}
    log[run["recommender"]["name"]] = found
    results = read_json(output) if output.exists() else {}
    write_json(output, results | {name: log})


def _of_log(output: Path, dataset: SequenceDataset, name: str) -> dict[str, Any]:
    """Return what is known of a log, nothing if its sequences are not those of today."""
    sizes = {"users": dataset.num_users, "items": dataset.num_items, "interactions": len(dataset.item_ids)}
    log = read_json(output).get(name, {}) if output.exists() else {}
    return dict(log) if log.items() >= sizes.items() else sizes


def _comparable(log: dict[str, Any], recommender: dict[str, Any]) -> dict[str, Any]:
    """Return a log's runs whose settings differ in nothing but seed and device."""

    def without_seed(settings: dict[str, Any]) -> dict[str, Any]:
        return settings | {"training": settings["training"] | {"seed": 0, "device": ""}}

    runs = log.get(recommender["name"], {}).get("seeds", {})
    wanted = without_seed(recommender)
    return {seed: run for seed, run in runs.items() if without_seed(run["recommender"]) == wanted}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", default=["glintru", "sasrec"], choices=["glintru", "sasrec"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--work", type=Path, default=Path("build/benchmark/accuracy"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/accuracy.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
