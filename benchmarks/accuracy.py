"""Both models of a ready-made run, trained with several seeds: test NDCG@10 and Recall@10 by full ranking.

    python -m benchmarks.accuracy --config pipelines/configs/ml-1m.yaml --data ml-1m.parquet --seeds 0 1 2

The epoch is chosen on validation, the test targets are ranked once, seen items are filtered. One thread. A run that was
stopped goes on from its checkpoint; one that is done is not repeated. Writes benchmarks/results/accuracy.json, which
keeps what other logs have there.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.data_at_scale import describe_machine
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
            done = options.work / config.name / f"{model}-{seed}.json"
            if not done.exists():
                write_json(done, measure(getattr(config.models, model), dataset, seed, done.with_suffix("")))
            say(f"{config.name}, {model}, seed {seed}: {read_json(done)['test']}")
    results = read_json(options.output) if options.output.exists() else {}
    results[config.name] = summarise(config.name, dataset, options.work / config.name)
    write_json(options.output, results)


def prepare(config: PipelineConfig, data: Path, folder: Path) -> SequenceDataset:
    """Build the run's sequences once."""
    if not (folder / "sequences").exists():
        ingest(IngestConfig(source=str(data)), folder / "interactions", folder / "downloads")
        build_sequences(folder / "interactions", folder / "sequences", config.sequences)
    return load_sequences(folder / "sequences")


def measure(
    recommender: GlintruRecommender | SasrecRecommender, dataset: SequenceDataset, seed: int, checkpoints: Path
) -> dict[str, Any]:
    """Train with a seed and rank the test targets by the best epoch's weights."""
    training = recommender.training.model_copy(update={"seed": seed, "num_threads": 1, "device": "cpu"})
    config = recommender.model_copy(update={"training": training})

    def metrics(model: SequentialRecommender, split: Any) -> dict[str, float]:
        cases = dataset.cases(split)
        result = rank_targets(ModelScorer(model), dataset, cases, filter_seen=True, batch_size=BATCH_SIZE)
        return {name: float(metrics_from_ranks(result.ranks, (10,))[name].mean()) for name in METRICS}

    model, result = train(
        config, dataset, validate=lambda model: metrics(model, "validation"), checkpoint_dir=checkpoints
    )
    return {
        "recommender": config.model_dump(),
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


def summarise(name: str, dataset: SequenceDataset, folder: Path) -> dict[str, Any]:
    """Gather every finished run of a log, with mean and standard deviation over seeds."""
    found: dict[str, Any] = {
        "hardware": describe_machine(),
        "users": dataset.num_users,
        "items": dataset.num_items,
        "interactions": len(dataset.item_ids),
    }
    for model in ("glintru", "sasrec"):
        runs = {path.stem.rpartition("-")[2]: read_json(path) for path in sorted(folder.glob(f"{model}-*.json"))}
        values = {metric: [run["test"][metric] for run in runs.values()] for metric in METRICS}
        found[model] = {
            "seeds": runs,
            **{
                metric: {"mean": float(np.mean(v)), "sd": float(np.std(v, ddof=1)) if len(v) > 1 else None}
                for metric, v in values.items()
                if v
            },
        }
        for metric in METRICS:
            say(f"{name}, {model}, {len(runs)} seeds: test {metric} {found[model].get(metric)}")
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", default=["glintru", "sasrec"], choices=["glintru", "sasrec"])
    parser.add_argument("--work", type=Path, default=Path("build/benchmark/accuracy"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/accuracy.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
