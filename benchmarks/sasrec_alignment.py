"""SASRec's positions counted from the oldest item (as here) or from the newest (as in the original's left padding).

    python -m benchmarks.sasrec_alignment --data ml-100k.parquet --config pipelines/configs/ml-100k.yaml --seeds 0 1 2

Both are trained alike, the epoch chosen on validation; prints validation and test NDCG@10 and adds to
benchmarks/results/sasrec_alignment.json.
"""

import argparse
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.accuracy import measure, prepare, with_seed
from glintru_model.config_io import load_pipeline_config
from glintru_model.files import read_json, write_json
from glintru_model.models.registry import MODELS
from glintru_model.models.sasrec import SASRec
from glintru_model.progress import say


class FromNewest(SASRec):
    """Counts positions back from each window's newest item."""

    def forward(self, item_ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Compute hidden_BLD."""
        self._lengths_B = lengths_B
        return super().forward(item_ids_BL, lengths_B)

    def newest(self, item_ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Compute hidden_BD."""
        self._lengths_B = lengths_B
        return super().newest(item_ids_BL, lengths_B)

    def has_kernel(self) -> bool:
        """Tell that there is none that counts so."""
        return False

    def position_rows(self, length: int) -> Tensor:
        """Look up how many items came after each step."""
        steps_L = torch.arange(length, device=self._lengths_B.device)
        rows_BLD: Tensor = self.positions((self._lengths_B[:, None] - 1 - steps_L).clamp_min(0))
        return rows_BLD


ALIGNMENTS = {"from_oldest": SASRec, "from_newest": FromNewest}


def main() -> None:
    """Train both with every seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--alignments", nargs="+", default=list(ALIGNMENTS), choices=list(ALIGNMENTS))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--work", type=Path, default=Path("build/benchmark/alignment"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/sasrec_alignment.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = load_pipeline_config(options.config)
    dataset = prepare(config, options.data, options.work / config.name)
    for seed in options.seeds:
        recommender = with_seed(config.models.sasrec, seed, options.device)
        for alignment in options.alignments:
            checkpoints = options.work / config.name / f"{alignment}-{seed}"
            with patch.dict(MODELS, sasrec=ALIGNMENTS[alignment]):
                run = measure(recommender, dataset, checkpoints)
            kept = {key: run[key] for key in ("validation", "test", "best_epoch", "seconds", "hardware")}
            say(f"{config.name}, seed {seed}, {alignment}: {kept}")
            results = read_json(options.output) if options.output.exists() else {}
            results.setdefault(config.name, {}).setdefault(alignment, {})[str(seed)] = kept
            write_json(options.output, results)


if __name__ == "__main__":
    main()
