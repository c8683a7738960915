"""How long a request takes, at batch 1 and 64, and one more event of a session.

    python -m benchmarks.serving_latency [--num-items 10000] [--max-seq-len 200]
    python -m benchmarks.serving_latency --runs-dir runs --registered quickstart-glintru quickstart-sasrec

`http` is a request to `mlflow models serve` over one connection, `pyfunc` the model as MLflow loads it (no HTTP),
`session` one event and its reply after a history of the given length. Without `--registered` the models are untrained:
the time does not depend on the weights. Histories are as long as the model looks back. Results are added to `--output`.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.data_at_scale import describe_machine
from benchmarks.serving_http import serve, time_requests
from glintru_model.config import GlintruConfig, GlintruRecommender, SasrecConfig, SasrecRecommender
from glintru_model.models.files import save_model
from glintru_model.models.registry import build_model
from glintru_model.serving.fetching import fetch_registered
from glintru_model.serving.packaging import save_pyfunc
from glintru_model.serving.recommender import Recommender
from glintru_model.serving.session import Session

_BATCHES = (1, 64)
_SESSIONS = (10, 1_000, 10_000)
_HISTORIES = 256  # different ones, so that no cache is measured


def main() -> None:
    """Measure, print and keep the figures."""
    options = _options()
    torch.set_num_threads(options.threads)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, address, directory, uri in _models(options, Path(scratch)):
            found = measure(name, address, directory, uri, options)
            print(json.dumps(found), flush=True)
            rows.append(found)
    kept = json.loads(options.output.read_text()) if options.output.exists() else {}
    kept["hardware"] = {**describe_machine(), "torch": torch.__version__}
    kept[options.label] = {"threads": options.threads, "requests": options.requests, "models": rows}
    options.output.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")


def measure(name: str, address: str, directory: Path, uri: str, options: argparse.Namespace) -> dict[str, Any]:
    """Time one model in every way."""
    recommender = Recommender.load(directory)
    ids, length = recommender.vocabulary.item_ids.to_pylist(), recommender.model.max_seq_len
    rng = np.random.default_rng(0)
    histories = [[ids[row] for row in rng.integers(0, len(ids), length)] for _ in range(_HISTORIES)]
    batches = {size: [histories[at : at + size] for at in range(0, _HISTORIES, size)] for size in _BATCHES}
    found: dict[str, Any] = {"model": name, "num_items": len(ids), "max_seq_len": length}
    with serve(address, directory.parent, options.threads, uri) as port:
        for size in _BATCHES:
            found[f"http_batch_{size}"] = time_requests(port, batches[size], options.requests)
    predict = load_pyfunc(directory, directory.parent / "pyfunc")
    for size in _BATCHES:
        turns = iter(batches[size] * options.requests)
        found[f"pyfunc_batch_{size}"] = timed(partial(_predict_next, predict, turns), options.requests)
    for events in _SESSIONS:
        session, following = Session(recommender), iter(histories[0] * options.requests)
        session.add(*(ids[row] for row in rng.integers(0, len(ids), events)))

        found[f"session_after_{events}"] = timed(partial(_add_next, session, following), options.requests)
    return found


def _predict_next(predict: Callable[[list[list[object]]], object], turns: Iterator[list[list[object]]]) -> None:
    predict(next(turns))


def _add_next(session: Session, following: Iterator[str]) -> None:
    session.add(next(following))
    session.recommend(10)


def _models(options: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, str, Path, str]]:
    """Yield name, address to serve, folder and tracking address of each model."""
    uri = f"sqlite:///{options.runs_dir.resolve() / 'mlflow.db'}"
    for name in options.registered:
        address, folder = f"models:/{name}@champion", scratch / name
        folder.mkdir()
        yield name, address, fetch_registered(uri, address, folder), uri
    if not options.registered:
        size = {"max_seq_len": options.max_seq_len, "embedding_dim": options.embedding_dim}
        for recommender in (
            GlintruRecommender(architecture=GlintruConfig(**size)),
            SasrecRecommender(architecture=SasrecConfig(**size)),
        ):
            directory = _untrained(recommender, scratch / recommender.name, options.num_items)
            save_pyfunc(directory, directory.parent / "served")
            yield recommender.name, str(directory.parent / "served"), directory, ""


def _untrained(recommender: GlintruRecommender | SasrecRecommender, folder: Path, num_items: int) -> Path:
    folder.mkdir()
    counts = np.arange(num_items, 0, -1)
    columns = {"item_id": np.arange(num_items), "train_count": counts, "recent_train_count": counts}
    vocabulary = pa.record_batch(columns)
    with pa.OSFile(str(folder / "v.arrow"), "wb") as file, pa.ipc.new_file(file, vocabulary.schema) as writer:
        writer.write(vocabulary)
    torch.manual_seed(0)
    save_model(build_model(recommender, num_items), recommender, folder / "v.arrow", folder / "model")
    return folder / "model"


def load_pyfunc(directory: Path, path: Path) -> Callable[[list[list[object]]], object]:
    """Pack the model and load it as MLflow does."""
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ["MLFLOW_LOGGING_LEVEL"] = "ERROR"
    import mlflow
    import pandas as pd

    save_pyfunc(directory, path)
    model = mlflow.pyfunc.load_model(str(path))
    return lambda rows: model.predict(pd.DataFrame({"history": rows}), params={"k": 10})


def timed(call: Callable[[], object], repeats: int) -> dict[str, float]:
    """Time a call: median and 99th percentile in ms, after a warm-up."""
    for _ in range(5):
        call()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - begin))
    return {"median_ms": float(np.median(times)), "p99_ms": float(np.quantile(times, 0.99))}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    parser.add_argument("--registered", nargs="+", default=[], help="registered models whose champions to serve")
    parser.add_argument("--num-items", type=int, default=10_000)
    parser.add_argument("--max-seq-len", type=int, default=200)
    parser.add_argument("--embedding-dim", type=int, default=64)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--label", default="untrained", help="what to call these figures in the results")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/serving_latency.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
