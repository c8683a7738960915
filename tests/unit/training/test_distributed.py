"""Training by several processes: the same curve as one, the same end for all, one line where one of them dies."""

import importlib
import json
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from glintru_model.config import TrainingConfig
from glintru_model.data.batches import Batch, TrainingBatches
from glintru_model.errors import ConfigError, DataError, TrainingError
from glintru_model.training import distributed
from glintru_model.training.distributed import processes_to_launch
from glintru_model.training.launcher import _explained, launch
from glintru_model.training.losses import build_loss
from glintru_model.training.shares import share_of

WORKER = Path(__file__).parent / "in_processes.py"


def settings(name="sasrec", dropout_rate=0.0, **training):
    architecture = {"embedding_dim": 8, "num_heads": 2, "max_seq_len": 6, "dropout_rate": dropout_rate}
    training = {"batch_size": 8, "max_epochs": 4, "device": "cpu", "num_threads": 1, "learning_rate": 0.01, **training}
    return {"name": name, "architecture": architecture, "training": training}


def by_one(*jobs):
    sys.path.insert(0, str(WORKER.parent))
    try:
        worker = importlib.import_module("in_processes")
    finally:
        sys.path.pop(0)
    return [worker.run(job) for job in jobs]


def torchrun(path, *options, **environment):
    command = [sys.executable, "-m", "torch.distributed.run", *options, str(WORKER), str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def by_torchrun(folder, *jobs):
    """Return what each of two processes found, and the output and exit code of torchrun."""
    path = folder / "job.json"
    path.write_text(json.dumps(jobs))
    started = torchrun(path, "--standalone", "--local-addr=localhost", "--nproc-per-node=2")
    stdout, stderr = started.communicate(timeout=120)
    return results(path), subprocess.CompletedProcess([], started.returncode, stdout, stderr)


def results(path):
    return [json.loads(path.with_name(f"{path.name}.{rank}").read_text()) for rank in range(2)]


def losses(result):
    return [epoch["train_loss"] for epoch in result["history"]]


@pytest.fixture
def batches(dataset_of):
    histories = [[(user * 7 + step) % 20 + 1 for step in range(4 + user % 9)] for user in range(11)]
    return TrainingBatches(
        dataset_of(histories, 20), max_seq_len=6, batch_size=5, every_position=True, seed=3, device="cpu"
    )


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_the_shares_of_a_batch_are_the_batch(batches, count):
    for batch in batches.epoch(1):
        expected = sorted(
            (batch.item_ids[row, : position + 1].tolist(), target)
            for row, position, target in zip(
                batch.rows.tolist(), batch.positions.tolist(), batch.targets.tolist(), strict=True
            )
        )
        found = []
        for rank in range(count):
            share = share_of(batch, rank, count)
            assert share.item_ids.shape == (len(share.lengths), max([0, *share.lengths.tolist()]))
            for row, position, target in zip(share.rows, share.positions, share.targets, strict=True):
                assert position < share.lengths[row]
                found.append((share.item_ids[row, : position + 1].tolist(), int(target)))
        assert sorted(found) == expected


@pytest.mark.parametrize("loss", ["cross_entropy", "sampled_softmax", "gbce", "bce"])
def test_weighed_by_their_targets_the_shares_gradients_add_up(loss, monkeypatch):
    """Every loss is a weighed sum over targets, however many a share has; drawn negatives are held fixed here."""
    random = torch.Generator().manual_seed(1)
    hidden = torch.randn(7, 4, generator=random, dtype=torch.float64)
    targets = torch.randint(1, 6, (7,), generator=random)
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, 0.3, dtype=torch.float64))
    monkeypatch.setattr(torch, "randint", lambda low, high, shape, **_: torch.full(shape, 2))
    loss_of = build_loss(TrainingConfig(loss=loss, num_negatives=3), torch.arange(1, 6).numpy(), torch.device("cpu"))

    def gradient(*parts):
        table = torch.linspace(-1, 1, 24, dtype=torch.float64).view(6, 4).requires_grad_()
        for part in parts:
            weights = torch.full((len(hidden[part]),), 1 / 7)
            loss_of(hidden[part], table, targets[part], weights).backward()
        return table.grad

    torch.testing.assert_close(gradient(slice(0, 2), slice(2, 7)), gradient(slice(0, 7)), rtol=1e-9, atol=1e-12)
    loss_of(
        hidden, table := torch.linspace(-1, 1, 24, dtype=torch.float64).view(6, 4).requires_grad_(), targets
    ).backward()
    torch.testing.assert_close(gradient(slice(0, 7)), table.grad, rtol=1e-6, atol=1e-9)  # 1/7 in float32


@pytest.mark.parametrize(
    ("asked", "device", "gpus", "expected"),
    [
        (0, "auto", 0, 1),
        (0, "auto", 4, 4),
        (0, "cuda", 4, 4),
        (0, "cuda:1", 4, 1),
        (0, "cpu", 4, 1),
        (2, "auto", 4, 2),
        (2, "auto", 0, 2),
        (3, "cpu", 0, 3),
    ],
)
def test_a_process_for_each_gpu_unless_told_otherwise(monkeypatch, asked, device, gpus, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert processes_to_launch(TrainingConfig(num_processes=asked, device=device)) == expected


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"num_processes 3: found 2 CUDA devices, allowed: 0 to 2"):
        processes_to_launch(TrainingConfig(num_processes=3))


def test_a_process_that_torchrun_started_starts_no_others(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert processes_to_launch(TrainingConfig(num_processes=3)) == 1


def test_no_two_processes_draw_alike(monkeypatch):
    monkeypatch.setattr(distributed.dist, "new_group", lambda **_: None)
    highest = (2**32 - 1) * 1_000_003 + 10**6
    seeds = [distributed.SeveralProcesses(rank, 64).seed(seed) for rank in range(64) for seed in (1, highest)]
    assert len(set(seeds)) == 128
    torch.manual_seed(max(seeds))  # torch takes them all
    assert distributed.SeveralProcesses(0, 64).seed(5) == distributed.SingleProcess(torch.device("cpu")).seed(5) == 5


@pytest.mark.slow
def test_two_processes_reach_the_curve_of_one(tmp_path):
    jobs = [
        {"config": settings(name, label_smoothing=0.1, gradient_clip_norm=0.5, weight_decay=0.1), "values": [0.1] * 4}
        for name in ("sasrec", "glintru")
    ]
    jobs.append({"config": settings(batch_size=1, learning_rate=1e-3), "values": [0.1] * 4})  # a share is often empty
    jobs.append({"config": settings(max_seconds=1e-6), "values": [0.1]})  # ends after its first batch
    jobs.append({"config": {**jobs[0]["config"], "training": {**jobs[0]["config"]["training"], "seed": 1}}})
    jobs[-1]["values"] = [0.1] * 4
    (first, second), done = by_torchrun(tmp_path, *jobs)
    assert done.returncode == 0, done.stderr
    for alone, two, other in zip(by_one(*jobs), first, second, strict=True):
        assert losses(two) == pytest.approx(losses(alone), rel=1e-5)
        assert two["stopped"] == alone["stopped"]
        assert other["weights"] == two["weights"]  # to the bit, or they would drift apart
        assert other["history"] == two["history"]
    assert losses(first[0]) != pytest.approx(losses(first[-1]), rel=1e-3)  # the comparison can fail
    assert [len(losses(result)) for result in first] == [4, 4, 4, 1, 4]
    heard = [line for line in done.stdout.splitlines() if ": stopped by " in line]
    assert len(heard) == len(jobs)  # the first process alone speaks


@pytest.mark.slow
def test_two_nodes_reach_the_curve_of_one_process(tmp_path):
    """Each node's torchrun is told of the others as Kubeflow Trainer tells it, by variables."""
    job, path = {"config": settings("glintru"), "values": [0.1] * 4}, tmp_path / "job.json"
    path.write_text(json.dumps([job]))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    told = {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "1", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": port}
    nodes = [torchrun(path, **told, PET_NODE_RANK=str(rank)) for rank in range(2)]
    ends = [node.communicate(timeout=120)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], ends
    (first,), (second,) = results(path)
    assert losses(first) == pytest.approx(losses(*by_one(job)), rel=1e-5)
    assert second["weights"] == first["weights"]


@pytest.mark.slow
def test_an_interrupted_training_goes_on_and_all_stop_together(tmp_path):
    values, config = [0.2, 0.1, 0.4, 0.3, 0.3, 0.2], settings(dropout_rate=0.3, max_epochs=9, patience=2)
    whole = {"config": config, "values": values[:5], "checkpoints": str(tmp_path / "whole")}
    parts = {**whole, "checkpoints": str(tmp_path / "parts")}
    (expected, other), interrupted = by_torchrun(tmp_path, whole, {**parts, "interrupted_after": 2})
    assert interrupted.returncode != 0
    assert "InterruptionError" in interrupted.stderr
    assert (expected[0]["stopped"], len(expected[0]["history"]), expected[0]["best_epoch"]) == ("patience", 5, 3)
    assert other[0]["history"] == expected[0]["history"]  # it was never told the values itself
    (resumed, _), done = by_torchrun(tmp_path, {**parts, "values": values[2:5]})
    assert done.returncode == 0, done.stderr
    assert "going on after epoch 2" in done.stdout
    assert losses(resumed[0]) == losses(expected[0])
    assert resumed[0]["weights"] == expected[0]["weights"]
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["checkpoint.pt"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("typed", r"^loss nan$"),
        (
            "killed",
            r"^training process 1 of 2 was ended by SIGKILL, which is how .* memory; the last checkpoint ",
        ),
    ],
)
def test_a_process_that_dies_ends_the_training_with_its_own_error(how, message, monkeypatch, capfd):
    monkeypatch.syspath_prepend(str(WORKER.parent))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    start = time.monotonic()
    with pytest.raises(TrainingError, match=message):
        launch(importlib.import_module("in_processes").fail, how, processes=2)
    assert time.monotonic() - start < 60
    assert capfd.readouterr().err == ""
    assert not logging.root.manager.disable


@pytest.mark.slow
def test_a_polite_end_ends_all_processes(tmp_path):
    code = "import in_processes as w; from glintru_model.training.launcher import launch; from glintru_model.command "
    code += f"import run_command as run; raise SystemExit(run(lambda: launch(w.wait, {str(tmp_path)!r}, processes=2)))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(WORKER.parent), *sys.path]))}
    command = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    command.terminate()
    _, err = command.communicate(timeout=30)
    assert (command.returncode, err) == (130, "interrupted\n")
    assert not any(psutil.pid_exists(int(path.name)) for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("left", "kind", "message"),
    [
        ("ZeroDivisionError: by\n  me", TrainingError, r"^training process 1 of 2: ZeroDivisionError: by me$"),
        ("DataError: no such file", DataError, r"^no such file$"),
        ("", TrainingError, r"^training process 1 of 2 ended with exit code 7; the last checkpoint stays$"),
    ],
)
def test_what_a_process_left_is_told_in_one_line(tmp_path, left, kind, message):
    error_file = tmp_path / "error.json"
    if left:  # in torchrun's own format
        error_file.write_text(json.dumps({"message": {"message": left, "extraInfo": {"timestamp": "1"}}}))
    with pytest.raises(kind, match=message):
        raise _explained(ProcessFailure(local_rank=1, pid=1, exitcode=7, error_file=str(error_file)), 2)


def test_an_empty_share_has_no_targets():
    lengths = torch.tensor([2])
    batch = Batch(
        torch.tensor([[3, 4]]), lengths, torch.tensor([0, 0]), torch.tensor([0, 1]), torch.tensor([4, 5]), torch.ones(2)
    )
    assert len(share_of(batch, 1, 2).targets) == 0
    assert share_of(batch, 0, 2).targets.tolist() == [4, 5]
