"""GLINT-RU on long histories: cost by length, cost per event, and whether ranking holds as the attention's sum grows.

    python -m benchmarks.long_histories [--output benchmarks/results/long_histories.json]

Three measurements on one thread: forward and backward of causal linear attention for 200 to 16,384 steps, each in a
process of its own, with the quadratic form beside it; the time of the 10th and of the 10,000th event fed to a model;
and, of a model trained on windows of 200 events, the attention's norm and NDCG@10 after 200, 1,000 and 10,000 events of
synthetic users whose taste is constant, so that a longer history can only help.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from benchmarks.data_at_scale import describe_machine
from glintru_model.config import GlintruConfig, GlintruRecommender, TrainingConfig
from glintru_model.data.sequences import SequenceDataset, Vocabulary
from glintru_model.files import write_json
from glintru_model.memory import peak_resident_bytes
from glintru_model.models.attention import causal_linear_attention, unit_norm
from glintru_model.models.glintru import GLINTRU, GlintruBlock
from glintru_model.progress import say
from glintru_model.training.trainer import train

LENGTHS = (200, 1_024, 4_096, 16_384)
HEADS, HEAD_DIM = 4, 16
WINDOW = 200  # events that a history is trained on
MARKS, MEASURED = (200, 1_000, 10_000), 50  # events before each mark that are ranked
ITEMS, CLUSTERS, TASTES = 2_000, 50, 3
TRAIN_USERS, TRAIN_EVENTS, TEST_USERS = 2_000, 402, 128


def main() -> None:
    """Run the three measurements and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/long_histories.json"))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--single", nargs=2, metavar=("FORM", "LENGTH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if options.single:
        print(json.dumps(measure_attention(options.single[0], int(options.single[1]))))
        return
    results: dict[str, Any] = {"hardware": describe_machine(), "attention": [], "events": [], "ranking": []}
    for form in ("chunked", "quadratic"):
        for length in LENGTHS if form == "chunked" else LENGTHS[:3]:
            command = [sys.executable, "-m", "benchmarks.long_histories", "--single", form, str(length)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            results["attention"].append(json.loads(done.stdout))
            say(f"attention, {results['attention'][-1]}")
    model = trained(options.epochs)
    results["events"] = event_costs(model)
    for form in ("sum", "capped", "damped"):
        results["ranking"] += ranking(model, form)
    write_json(options.output, results)
    say(f"results: {options.output}")


def measure_attention(form: str, length: int) -> dict[str, Any]:
    """Time forward and backward, the best of five, and the memory that they add."""
    q, k, v = torch.randn(3, 1, HEADS, length, HEAD_DIM).unbind()
    q, k = unit_norm(q).requires_grad_(), unit_norm(k).requires_grad_()
    v.requires_grad_()

    def run(rows: int) -> None:
        parts = q[..., :rows, :], k[..., :rows, :], v[..., :rows, :]
        attended = causal_linear_attention(*parts) if form == "chunked" else _quadratic(*parts)
        attended.sum().backward()  # type: ignore[no-untyped-call]

    run(64)  # loads what the first call loads
    before, seconds = peak_resident_bytes(), []
    for _ in range(5):
        begin = time.perf_counter()
        run(length)
        seconds.append(time.perf_counter() - begin)
    added = peak_resident_bytes() - before
    return {"form": form, "length": length, "milliseconds": 1e3 * min(seconds), "added_mib": added / 2**20}


def _quadratic(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    attended: Tensor = (q @ k.mT).tril() @ v * HEAD_DIM**-0.5
    return attended


def synthetic_events(users: int, events: int, seed: int) -> npt.NDArray[np.int64]:
    """Draw (users, events) items 1..ITEMS: half of the time the last cluster's successor, else a taste of the user."""
    random = np.random.default_rng(seed)
    size = ITEMS // CLUSTERS
    share = 1 / np.arange(1, size + 1)
    ranks = random.choice(size, size=(users, events), p=share / share.sum())
    tastes = random.integers(0, CLUSTERS, size=(users, TASTES))
    clusters = np.empty((users, events), dtype=np.int64)
    last = tastes[:, 0]
    for event in range(events):
        of_taste = tastes[np.arange(users), random.integers(0, TASTES, size=users)]
        last = np.where(random.random(users) < 0.5, (last * 7 + 3) % CLUSTERS, of_taste)
        clusters[:, event] = last
    return clusters * size + ranks + 1


def trained(epochs: int) -> GLINTRU:
    """Train on windows of 200 events."""
    events = synthetic_events(TRAIN_USERS, TRAIN_EVENTS, seed=1)
    counts = np.bincount(events.ravel(), minlength=ITEMS + 1)[1:]
    everything = np.full(TRAIN_USERS, TRAIN_EVENTS)
    dataset = SequenceDataset(
        user_ids=pa.array(range(TRAIN_USERS)),
        offsets=np.arange(TRAIN_USERS + 1) * TRAIN_EVENTS,
        item_ids=events.ravel().astype(np.int32),
        train_ends=everything,
        validation_ends=everything,
        vocabulary=Vocabulary(pa.array(range(ITEMS)), counts, counts),
        manifest={},
    )
    config = GlintruRecommender(
        architecture=GlintruConfig(max_seq_len=WINDOW, embedding_dim=HEADS * HEAD_DIM, num_heads=HEADS),
        training=TrainingConfig(max_epochs=epochs, patience=epochs, batch_size=64, device="cpu", num_threads=1),
    )
    steps = iter(range(1, epochs + 1))
    model, _ = train(config, dataset, validate=lambda _: {"ndcg_at_10": float(next(steps))})  # keeps the last epoch
    return cast(GLINTRU, model)


@torch.inference_mode()
def event_costs(model: GLINTRU) -> list[dict[str, Any]]:
    """Time single events of one user, the median of the ten up to each; and the bytes that are carried."""
    events = torch.from_numpy(synthetic_events(1, MARKS[-1], seed=2))
    for _ in range(50):  # the first calls load what they need
        model.step(events[:, 0], model.initial_state(1))
    state, seconds, costs = model.initial_state(1), [], []
    for event in range(MARKS[-1]):
        begin = time.perf_counter()
        _, state = model.step(events[:, event], state)
        seconds.append(time.perf_counter() - begin)
        if event + 1 in (10, *MARKS):
            size = sum(tensor.numel() * tensor.element_size() for block in state for tensor in block)
            costs.append({"event": event + 1, "microseconds": 1e6 * float(np.median(seconds[-10:])), "bytes": size})
            say(f"event {costs[-1]}")
    return costs


@torch.inference_mode()
def ranking(model: GLINTRU, form: str) -> list[dict[str, Any]]:
    """Feed long histories event by event; rank the events before each mark among all items.

    `sum` is the model as it is; `capped` lets the attention grow no further after as many events as it was trained on,
    `damped` by the square root of their number alone. What is gained since the first mark has its standard error over
    users.
    """
    events = torch.from_numpy(synthetic_events(TEST_USERS, MARKS[-1] + 1, seed=3))
    norms: list[float] = []
    attention = cast(GlintruBlock, model.blocks[0]).attention

    def weigh(_: torch.nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        norms.append(inputs[0].norm(dim=-1).mean().item())
        beyond = min(1.0, WINDOW / len(norms))
        return (inputs[0] * {"sum": 1.0, "capped": beyond, "damped": beyond**0.5}[form],)

    handle = attention.output.register_forward_pre_hook(weigh)
    state, gains, found, of_users = model.initial_state(TEST_USERS), [], [], []
    for event in range(MARKS[-1]):
        hidden_BD, state = model.step(events[:, event], state)
        if any(mark - MEASURED <= event < mark for mark in MARKS):
            scores_BV1 = model.score(hidden_BD)
            ranks_B = (scores_BV1 >= scores_BV1.gather(1, events[:, event + 1, None])).sum(1)
            gains.append(torch.where(ranks_B <= 10, 1 / (ranks_B + 1.0).log2(), 0).double())
        if event + 1 in MARKS:
            of_users.append(torch.stack(gains[-MEASURED:]).mean(0))
            gained_B = of_users[-1] - of_users[0]
            found.append(
                {
                    "form": form,
                    "events": event + 1,
                    "ndcg_at_10": of_users[-1].mean().item(),
                    "gained": gained_B.mean().item(),
                    "gained_standard_error": gained_B.std().item() / TEST_USERS**0.5,
                    "attention_norm": float(np.mean(norms[-MEASURED:])),
                }
            )
            say(f"after {found[-1]}")
    handle.remove()
    return found


if __name__ == "__main__":
    main()
