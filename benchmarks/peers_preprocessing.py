"""RecBole's and RecTools' own way from a log to training sequences, timed; runs in an environment that has them.

    peers/bin/python -m benchmarks.peers_preprocessing recbole|rectools LOG_FOLDER

Prints one line of JSON: rows, seconds, peak memory. What a package does not do itself is not done: RecTools has no
k-core, RecBole reads text alone (writing it is not counted).
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

from glintru_model.memory import peak_resident_bytes  # needs the standard library alone


def run_recbole(log: Path) -> tuple[int, float, float]:
    """Read the atomic file, 5-core, remap, leave one out, and make the training samples."""
    from recbole.config import Config
    from recbole.data import create_dataset

    frame = pd.read_parquet(log)
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "log"
        folder.mkdir()
        names = {"user_id": "user_id:token", "item_id": "item_id:token", "timestamp": "timestamp:float"}
        frame.rename(columns=names).to_csv(folder / "log.inter", sep="\t", index=False)
        rows = len(frame)
        del frame
        settings: dict[str, Any] = {
            "data_path": home,
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "user_inter_num_interval": "[5,inf)",
            "item_inter_num_interval": "[5,inf)",
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
            "train_neg_sample_args": None,
            "MAX_ITEM_LIST_LENGTH": 50,
            "use_gpu": False,
        }
        arguments, sys.argv = sys.argv, sys.argv[:1]  # it reads the command line
        config = Config(model="SASRec", dataset="log", config_dict=settings)
        sys.argv = arguments
        begin, cpu = time.perf_counter(), time.process_time()
        create_dataset(config).build()
        return rows, time.perf_counter() - begin, time.process_time() - cpu


def run_rectools(log: Path) -> tuple[int, float, float]:
    """Read Parquet, leave one out, construct the dataset, and make the training sequences."""
    from rectools import Columns
    from rectools.dataset import Dataset, Interactions
    from rectools.model_selection import LastNSplitter
    from rectools.models import SASRecModel

    begin, cpu = time.perf_counter(), time.process_time()
    frame = pd.read_parquet(log)
    frame[Columns.Datetime] = pd.to_datetime(frame.pop("timestamp"), unit="s")
    frame[Columns.Weight] = 1.0
    [(train, _, _)] = LastNSplitter(n=1, n_splits=1).split(Interactions(frame))
    dataset = Dataset.construct(frame.iloc[train])
    model = SASRecModel(session_max_len=50)
    model.data_preparator.process_dataset_train(dataset)
    model.data_preparator.get_dataloader_train()
    return len(frame), time.perf_counter() - begin, time.process_time() - cpu


def main() -> None:
    """Run one package on one log."""
    rows, seconds, cpu_seconds = {"recbole": run_recbole, "rectools": run_rectools}[sys.argv[1]](Path(sys.argv[2]))
    peak = peak_resident_bytes() / 1e9
    times = {"seconds": seconds, "cpu_seconds": cpu_seconds}
    print(json.dumps({"package": sys.argv[1], "rows": rows, **times, "peak_gb": peak}))


if __name__ == "__main__":
    main()
