"""`glintru train` on what it cannot train with: one line and an exit code, whatever is wrong."""

import math
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml

from glintru_model.cli import main
from glintru_model.files import read_json, write_json
from glintru_model.training import trainer

SIZES = {"embedding_dim": 8, "num_heads": 2, "max_seq_len": 6}
TRAINING = {"batch_size": 1000, "max_epochs": 3, "device": "cpu"}  # one step an epoch
NUM_USERS, NUM_ITEMS = 20, 24


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Sequences as the commands before `train` leave them."""
    folder = tmp_path_factory.mktemp("good")
    log = {"num_users": NUM_USERS, "num_items": NUM_ITEMS, "num_clusters": 3, "max_length": 12}
    (folder / "run.yaml").write_text(yaml.safe_dump({"ingest": {"source": "synthetic", "synthetic": log}}))
    config = ["--config", str(folder / "run.yaml")]
    interactions, dataset = str(folder / "interactions"), str(folder / "sequences")
    assert main(["ingest", *config, "--output", interactions]) == 0
    assert main(["build-sequences", *config, "--interactions", interactions, "--output", dataset]) == 0
    return folder / "sequences"


@pytest.fixture
def train(good, tmp_path, capsys):
    """Run the command on a copy of the sequences; returns its exit code and what it wrote to stderr."""
    dataset = tmp_path / "sequences"
    shutil.copytree(good, dataset)

    def run(architecture=(), training=(), change=lambda dataset: None):
        models = {
            "sasrec": {"architecture": {**SIZES, **dict(architecture)}, "training": {**TRAINING, **dict(training)}}
        }
        (tmp_path / "run.yaml").write_text(yaml.safe_dump({"models": models}))
        change(dataset)
        options = ["--config", tmp_path / "run.yaml", "--model", "sasrec", "--dataset", dataset]
        capsys.readouterr()
        code = main(["train", *map(str, options), "--output", str(tmp_path / "model")])
        return code, capsys.readouterr().err

    return run


def rewrite(dataset, change):
    """Write the sequences' Arrow file again as `change` leaves its columns; the manifest follows."""
    path = dataset / "sequences.arrow"
    columns = pa.ipc.open_file(pa.BufferReader(path.read_bytes())).read_all().to_pydict()
    change(columns)
    batch = pa.record_batch(
        {
            "user_id": pa.array(columns["user_id"]),
            "item_ids": pa.array(columns["item_ids"], pa.list_(pa.int32())),
            "train_end": pa.array(columns["train_end"], pa.int64()),
            "validation_end": pa.array(columns["validation_end"], pa.int64()),
        }
    )
    with pa.ipc.new_file(path, batch.schema) as writer:
        writer.write_batch(batch)
    manifest = read_json(dataset / "manifest.json")
    manifest["num_interactions"] = sum(map(len, columns["item_ids"]))
    write_json(dataset / "manifest.json", manifest)


def name_an_item_that_does_not_exist(dataset):
    def change(columns):
        columns["item_ids"][3][1] = NUM_ITEMS + 7

    rewrite(dataset, change)


def empty_every_history(dataset):
    def change(columns):
        nothing = np.zeros(len(columns["user_id"]), dtype=np.int64)
        columns.update(item_ids=[[] for _ in nothing], train_end=nothing, validation_end=nothing)

    rewrite(dataset, change)


def empty_one_history(dataset):
    def change(columns):
        columns["item_ids"][3], columns["train_end"][3], columns["validation_end"][3] = [], 0, 0

    rewrite(dataset, change)


BAD = {  # settings of the model and of its training, what is done to the sequences, the line
    "heads": ({"num_heads": 3}, {}, None, "num_heads 3 does not divide embedding_dim 8"),
    "no steps": ({"max_seq_len": 0}, {}, None, "architecture.max_seq_len: found 0: "),
    "item": ({}, {}, name_an_item_that_does_not_exist, f"item index {NUM_ITEMS + 7}, allowed: 1..{NUM_ITEMS}"),
    "histories": ({}, {}, empty_every_history, f"none of {NUM_USERS} users has 2 training events, nothing to train on"),
    "precision": ({}, {"precision": "bfloat16"}, None, "'bfloat16': cpu has no support for it, allowed: float32"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2(case, train, tmp_path, monkeypatch):
    architecture, training, change, part = BAD[case]
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)  # a processor without bfloat16
    code, err = train(architecture, training, *([change] if change else []))
    assert_one_line(err, part)
    assert code == 2
    assert not (tmp_path / "model").exists()


def test_a_user_without_events_is_passed_over(train):
    assert train(change=empty_one_history) == (0, "")


def test_a_loss_that_is_not_finite_is_one_line_and_exit_code_1_and_keeps_the_checkpoint(train, tmp_path, monkeypatch):
    checkpoint, kept = tmp_path / "model.checkpoints" / "checkpoint.pt", []
    save = trainer.save_checkpoint

    def save_and_spoil(*arguments):
        save(*arguments)
        kept.append(checkpoint.read_bytes())
        monkeypatch.setattr(torch.nn.LayerNorm, "forward", lambda self, x: x * math.nan)

    monkeypatch.setattr(trainer, "save_checkpoint", save_and_spoil)
    code, err = train()
    assert_one_line(err, "loss nan", " at step 2 (epoch 2, batch sha256 ")
    assert code == 1
    assert [checkpoint.read_bytes()] == kept
    assert not (tmp_path / "model").exists()


def assert_one_line(err, *parts):
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line
