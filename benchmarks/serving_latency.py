"""How long a request takes: the registered model at batch 1 and 64, and one more event of a session.

    python -m benchmarks.serving_latency [--num-items 10000] [--max-seq-len 200]

Untrained weights: the time does not depend on them. Each figure is over `--repeats` calls after a warm-up. `pyfunc` is
the model as MLflow loads it (without HTTP), `session` one event and its reply after a history of the given length.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from glintru_model.config import GlintruConfig, GlintruRecommender, SasrecConfig, SasrecRecommender
from glintru_model.models.files import save_model
from glintru_model.models.registry import build_model
from glintru_model.serving.packaging import save_pyfunc
from glintru_model.serving.recommender import Recommender
from glintru_model.serving.session import Session


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-items", type=int, default=10_000)
    parser.add_argument("--max-seq-len", type=int, default=200)
    parser.add_argument("--embedding-dim", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{platform.processor() or platform.machine()}, {options.threads} threads, torch {torch.__version__}")
    print(f"{options.num_items:,} items, width {options.embedding_dim}, max_seq_len {options.max_seq_len}\n")
    print(f"{'':44}{'median':>10}{'p95':>10}")
    size = {"max_seq_len": options.max_seq_len, "embedding_dim": options.embedding_dim}
    for recommender in (
        GlintruRecommender(architecture=GlintruConfig(**size)),
        SasrecRecommender(architecture=SasrecConfig(**size)),
    ):
        with tempfile.TemporaryDirectory() as scratch:
            measure(recommender, Path(scratch), options)


def measure(recommender, folder: Path, options: argparse.Namespace) -> None:
    """Print one model's lines."""
    directory, rng = folder / "model", np.random.default_rng(0)
    counts = np.arange(options.num_items, 0, -1)
    vocabulary = pa.record_batch(
        {"item_id": np.arange(options.num_items), "train_count": counts, "recent_train_count": counts}
    )
    with pa.OSFile(str(folder / "v.arrow"), "wb") as file, pa.ipc.new_file(file, vocabulary.schema) as writer:
        writer.write(vocabulary)
    torch.manual_seed(0)
    save_model(build_model(recommender, options.num_items), recommender, folder / "v.arrow", directory)
    served = load_pyfunc(directory, folder / "pyfunc")
    for batch in (1, 64):
        rows = [rng.integers(0, options.num_items, options.max_seq_len).tolist() for _ in range(batch)]
        timed(f"{recommender.name} pyfunc, batch {batch}", lambda rows=rows: served(rows), options.repeats)
    loaded = Recommender.load(directory)
    for length in (10, 1_000, 10_000):
        session = Session(loaded)
        session.add(*rng.integers(0, options.num_items, length).tolist())
        events = iter(rng.integers(0, options.num_items, 10 * options.repeats).tolist())

        def next_event(session: Session = session, events=events) -> None:
            session.add(next(events))
            session.recommend(10)

        timed(f"{recommender.name} session, after {length:,} events", next_event, options.repeats)


def load_pyfunc(directory: Path, path: Path) -> Callable[[list[list[int]]], object]:
    """Pack the model and load it as MLflow does."""
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ["MLFLOW_LOGGING_LEVEL"] = "ERROR"
    import mlflow
    import pandas as pd

    save_pyfunc(directory, path)
    model = mlflow.pyfunc.load_model(str(path))
    return lambda rows: model.predict(pd.DataFrame({"history": rows}), params={"k": 10})


def timed(what: str, call: Callable[[], object], repeats: int) -> None:
    """Print the median and the 95th percentile of a call's time."""
    for _ in range(5):
        call()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - begin))
    print(f"{what:<44}{np.median(times):>7.2f} ms{np.quantile(times, 0.95):>7.2f} ms", flush=True)


if __name__ == "__main__":
    main()
