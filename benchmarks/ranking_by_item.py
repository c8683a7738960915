"""Both models' two ways to many histories' newest vectors on one CPU thread: by item, and step by step.

    taskset --cpu-list 0 python -m benchmarks.ranking_by_item

Items are drawn evenly, so that they repeat less than in a log. Prints milliseconds, the best of some that alternate;
writes benchmarks/results/ranking_by_item.json. `last_hidden` goes by item where there are as many steps as items
(GLINT-RU), or four times as many (a part of SASRec's first block).
"""

import argparse
import math
import time
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.data_at_scale import describe_machine
from benchmarks.own_training import recommender
from glintru_model.files import write_json
from glintru_model.models import sasrec
from glintru_model.models.registry import build_model

LENGTH, REPETITIONS = 200, 12
NUM_ITEMS = (3_416, 12_101, 1_000_000)
HISTORIES = ((16, 20), (16, 200), (32, 100), (64, 20), (64, 200), (256, 100), (512, 200))  # how many, how long


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/ranking_by_item.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name, num_items in product(("glintru", "sasrec"), NUM_ITEMS):
        model: Any = build_model(recommender(name, LENGTH, 0, "cpu"), num_items).eval()
        for batch, length in HISTORIES:
            arguments = torch.randint(1, num_items + 1, (batch, length)), torch.full((batch,), length)
            sizes = {"model": name, "items": num_items, "histories": batch, "length": length}
            rows.append(sizes | milliseconds(model, arguments))
            print(rows[-1])
    write_json(options.output, {"hardware": describe_machine(), "rows": rows})


def milliseconds(model: Any, arguments: tuple[torch.Tensor, torch.Tensor]) -> dict[str, float]:
    """Return both ways' best times."""
    if isinstance(model, sasrec.SASRec):
        ways = {way: partial(_newest, model, repeats) for way, repeats in (("by_item", 0.0), ("by_step", math.inf))}
    else:
        ways = {"by_item": model._newest_by_item, "by_step": model.newest}
    best = dict.fromkeys(ways, float("inf"))
    with torch.no_grad():
        for _ in range(REPETITIONS):
            for way, newest in ways.items():
                begin = time.perf_counter()
                newest(*arguments)
                best[way] = min(best[way], (time.perf_counter() - begin) * 1e3)
    return best


def _newest(model: sasrec.SASRec, repeats: float, *arguments: torch.Tensor) -> torch.Tensor:
    with patch.object(sasrec, "ITEMS_REPEAT", repeats):
        return model.newest(*arguments)


if __name__ == "__main__":
    main()
