"""What changing settings of a ready-made run does: one training for each change, one seed.

    python -m benchmarks.settings --config pipelines/configs/ml-1m.yaml --data ml-1m.parquet --model sasrec \
        --changes '{}' '{"num_blocks": 2}' '{"label_smoothing": 0.1, "weight_decay": 0.3}'

The epoch is chosen on validation; prints validation and test NDCG@10 and adds to benchmarks/results/settings.json
(processes side by side need an --output each). A choice is made by validation; three seeds of what was chosen are then
trained by `benchmarks.accuracy`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.accuracy import Recommender, measure, prepare, with_seed
from glintru_model.config_io import load_pipeline_config
from glintru_model.files import read_json, write_json
from glintru_model.progress import say


def main() -> None:
    """Train with every change."""
    options = _options()
    torch.set_num_threads(1)
    config = load_pipeline_config(options.config)
    dataset = prepare(config, options.data, options.work / config.name)
    recommender = with_seed(getattr(config.models, options.model), options.seed, options.device)
    for change in options.changes:
        name = f"{options.model}-{options.seed}-{json.dumps(change, sort_keys=True)}"
        checkpoints = options.work / config.name / name
        run = measure(changed(recommender, change), dataset, checkpoints)
        say(f"{config.name}, {options.model}, {change}: {run['validation']}, test {run['test']}")
        results = read_json(options.output) if options.output.exists() else []
        write_json(options.output, [*results, {"log": config.name} | run])


def changed(recommender: Recommender, change: dict[str, Any]) -> Recommender:
    """Return the settings with some replaced, each where a setting of its name is; a name of neither is refused."""
    settings = recommender.model_dump()
    for name, value in change.items():
        settings["training" if name in settings["training"] else "architecture"][name] = value
    return type(recommender).model_validate(settings)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True, choices=["glintru", "sasrec"])
    parser.add_argument("--changes", type=json.loads, nargs="+", required=True, metavar="JSON")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--work", type=Path, default=Path("build/benchmark/settings"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/settings.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
