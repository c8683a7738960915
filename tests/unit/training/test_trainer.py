import math

import numpy as np
import pytest
import torch

from glintru_model.config import (
    GlintruConfig,
    GlintruRecommender,
    SasrecConfig,
    SasrecRecommender,
    TrainingConfig,
)
from glintru_model.errors import ConfigError, DataError, TrainingError
from glintru_model.training import trainer
from glintru_model.training.cross_entropy import cross_entropy
from glintru_model.training.distributed import SingleProcess
from glintru_model.training.optimizer import build_optimizer, learning_rate
from glintru_model.training.trainer import train

SIZES = {"embedding_dim": 8, "num_heads": 2, "max_seq_len": 6, "dropout_rate": 0.2}


def recommender(name="sasrec", **training):
    settings = TrainingConfig(**{"batch_size": 4, "max_epochs": 4, "device": "cpu", **training})
    if name == "sasrec":
        return SasrecRecommender(architecture=SasrecConfig(**SIZES), training=settings)
    return GlintruRecommender(architecture=GlintruConfig(**SIZES), training=settings)


@pytest.fixture
def dataset(dataset_of):
    random = np.random.default_rng(0)
    return dataset_of([random.integers(1, 21, length).tolist() for length in random.integers(4, 12, 30)], 20)


class Script:
    """A validation that follows a script of values, whatever the model; it also draws from torch's generator."""

    def __init__(self, *values):
        self.values, self.weights = list(values), []

    def __call__(self, model):
        assert not model.training
        torch.rand(3)
        self.weights.append(model.item_embedding.weight.detach().clone())
        return {"ndcg_at_10": self.values[len(self.weights) - 1], "recall_at_10": 0.5}


def weights_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def test_the_best_epochs_weights_are_returned_and_told(dataset):
    script, told = Script(0.1, 0.3, 0.2, 0.25), []
    model, result = train(recommender(), dataset, validate=script, on_epoch=told.append)
    assert torch.equal(model.item_embedding.weight, script.weights[1])
    assert not torch.equal(model.item_embedding.weight, script.weights[3])
    assert not model.training
    assert (result.best_epoch, result.best_metrics) == (2, {"ndcg_at_10": 0.3, "recall_at_10": 0.5})
    assert result.stopped == "max_epochs"
    assert result.history == told
    assert [epoch.epoch for epoch in told] == [1, 2, 3, 4]
    assert result.seconds == pytest.approx(sum(epoch.seconds for epoch in told))
    assert result.num_parameters == sum(p.numel() for p in model.parameters())
    assert result.peak_memory_bytes > 1 << 20
    assert all(epoch.targets_per_second > 0 for epoch in told)


def test_patience_counts_epochs_without_a_new_best(dataset):
    script = Script(0.1, 0.3, 0.3, 0.2, 0.9)  # an equal value is no gain
    _, result = train(recommender(max_epochs=9, patience=2), dataset, validate=script)
    assert (len(result.history), result.best_epoch, result.stopped) == (4, 2, "patience")


def test_a_time_limit_ends_training_after_a_validation(dataset, monkeypatch):
    now = iter(range(0, 100_000, 10))  # every look at the clock costs ten seconds
    monkeypatch.setattr(trainer.time, "monotonic", lambda: float(next(now)))
    _, result = train(recommender(max_epochs=50, max_seconds=200), dataset, validate=Script(*[0.1] * 50))
    assert result.stopped == "max_seconds"
    assert 1 <= len(result.history) < 50


@pytest.mark.parametrize("name", ["sasrec", "glintru"])
@pytest.mark.parametrize("interrupted_after", [1, 3])
def test_a_resumed_training_equals_an_uninterrupted_one(dataset, tmp_path, name, interrupted_after):
    values = [0.2, 0.1, 0.4, 0.3]
    config = recommender(name, warmup_steps=5, ema_decay=0.9)
    whole, expected = train(config, dataset, validate=Script(*values), checkpoint_dir=tmp_path / "whole")

    def interrupt(result):
        if result.epoch == interrupted_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, dataset, validate=Script(*values), on_epoch=interrupt, checkpoint_dir=tmp_path / "parts")
    torch.rand(17)  # what happens between does not matter
    rest = Script(*values[interrupted_after:])
    resumed, result = train(config, dataset, validate=rest, checkpoint_dir=tmp_path / "parts")
    assert len(rest.weights) == 4 - interrupted_after
    assert same(weights_of(whole), weights_of(resumed))
    assert [e.train_loss for e in result.history] == [e.train_loss for e in expected.history]
    assert (result.best_epoch, result.best_metrics) == (expected.best_epoch, expected.best_metrics)


def test_a_finished_training_is_not_repeated(dataset, tmp_path):
    first, expected = train(recommender(), dataset, validate=Script(0.1, 0.2, 0.3, 0.1), checkpoint_dir=tmp_path)
    again = Script()
    second, result = train(recommender(), dataset, validate=again, checkpoint_dir=tmp_path)
    assert again.weights == []
    assert result.history == expected.history
    assert same(weights_of(first), weights_of(second))


@pytest.mark.parametrize("changed", ["settings", "data"])
def test_a_checkpoint_of_other_settings_or_data_is_not_taken_up(dataset, dataset_of, tmp_path, changed):
    train(recommender(max_epochs=1), dataset, validate=Script(0.1), checkpoint_dir=tmp_path)
    other = dataset_of([[1, 2, 3, 4, 5]] * 4, 20)
    config = recommender(max_epochs=1, learning_rate=0.01 if changed == "settings" else 1e-3)
    script = Script(0.2)
    train(config, other if changed == "data" else dataset, validate=script, checkpoint_dir=tmp_path)
    assert len(script.weights) == 1


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_damaged_checkpoint_is_named(dataset, tmp_path, content):
    train(recommender(max_epochs=1), dataset, validate=Script(0.1), checkpoint_dir=tmp_path)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    with pytest.raises(DataError, match=r"checkpoint\.pt: not a whole checkpoint, remove it to start anew"):
        train(recommender(max_epochs=1), dataset, validate=Script(0.1), checkpoint_dir=tmp_path)


def test_a_checkpoint_that_would_run_code_is_not_loaded(dataset, tmp_path):
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("code ran",))

    torch.save({"fingerprint": Evil()}, tmp_path / "checkpoint.pt")
    with pytest.raises(DataError, match="not a whole checkpoint"):
        train(recommender(), dataset, validate=Script(0.1), checkpoint_dir=tmp_path)


class ExplodingGradient(torch.autograd.Function):
    """Passes its input on as it is, and back a gradient that has no end."""

    @staticmethod
    def forward(_, x):
        return x.clone()

    @staticmethod
    def backward(_, gradient):
        return torch.full_like(gradient, math.inf)


@pytest.mark.parametrize(
    ("spoiled", "told"),
    [
        (lambda self, x: torch.full_like(x, math.nan, requires_grad=True), "loss nan with gradient norm nan"),
        (lambda self, x: ExplodingGradient.apply(x), r"loss \d+\.\d+ with gradient norm (nan|inf)"),
    ],
)
def test_a_loss_or_gradient_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
    dataset, tmp_path, monkeypatch, spoiled, told
):
    config = recommender(batch_size=1000)  # one step an epoch
    good = {}

    def poison(result):
        good["bytes"] = (tmp_path / "checkpoint.pt").read_bytes()
        monkeypatch.setattr(torch.nn.LayerNorm, "forward", spoiled)

    with pytest.raises(TrainingError, match=told + r" at step 2 \(epoch 2, batch sha256 [0-9a-f]{16}\)"):
        train(config, dataset, validate=Script(0.1), on_epoch=poison, checkpoint_dir=tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == good["bytes"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt"]


def test_what_on_epoch_raises_ends_the_training(dataset):
    def prune(result):
        raise LookupError(result.epoch)

    with pytest.raises(LookupError, match="1"):
        train(recommender(), dataset, validate=Script(0.1), on_epoch=prune)


def test_threads_and_random_state_are_put_back(dataset):
    threads, seen = torch.get_num_threads(), []
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)

    def validate(model):
        seen.append(torch.get_num_threads())
        return {"ndcg_at_10": 0.1}

    train(recommender(max_epochs=1, num_threads=threads + 1), dataset, validate=validate)
    assert seen == [threads + 1]
    assert torch.get_num_threads() == threads
    assert torch.rand(1) == expected


def test_the_seed_decides_the_result(dataset):
    runs = [train(recommender(seed=seed), dataset, validate=Script(*[0.1] * 4))[0] for seed in (1, 1, 2)]
    assert same(weights_of(runs[0]), weights_of(runs[1]))
    assert not same(weights_of(runs[0]), weights_of(runs[2]))


def test_bfloat16_is_refused_where_the_processor_lacks_it(dataset, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
    with pytest.raises(ConfigError, match=r"precision 'bfloat16': cpu has no support for it, allowed: float32"):
        train(recommender(precision="bfloat16"), dataset, validate=Script(0.1))


def test_bfloat16_is_refused_on_a_cpu_to_losses_that_do_not_gain(dataset, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    message = r"'bfloat16': on cpu it is of loss cross_entropy alone, found gbce, allowed: float32"
    with pytest.raises(ConfigError, match=message):
        train(recommender(precision="bfloat16", loss="gbce"), dataset, validate=Script(0.1))


@pytest.mark.parametrize("name", ["sasrec", "glintru"])
def test_bfloat16_trains_close_to_float32(dataset, monkeypatch, name):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})  # emulated elsewhere
    losses = []
    for precision in ("float32", "bfloat16"):
        model, result = train(recommender(name, precision=precision), dataset, validate=Script(*[0.1] * 4))
        losses.append(result.history[-1].train_loss)
        assert model.item_embedding.weight.dtype == torch.float32
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_bfloat16_is_of_the_loss_alone_on_a_cpu(dataset, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    of_layers, of_losses = set(), set()

    def note(layer, inputs, output):
        if isinstance(layer, torch.nn.Linear):
            of_layers.add(output.dtype)

    def noting_loss(*arguments):
        of_losses.add(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32)
        return cross_entropy(*arguments)

    monkeypatch.setattr(trainer, "build_loss", lambda *settings: noting_loss)
    handle = torch.nn.modules.module.register_module_forward_hook(note)
    try:
        train(recommender(precision="bfloat16"), dataset, validate=Script(*[0.1] * 4))
    finally:
        handle.remove()
    assert (of_layers, of_losses) == ({torch.float32}, {torch.bfloat16})


def test_a_missing_gpu_is_refused(dataset, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match=r"device 'cuda:1': found 0 CUDA devices, allowed: auto, cpu"):
        train(recommender(device="cuda:1"), dataset, validate=Script(0.1))


@pytest.mark.parametrize("loss", ["cross_entropy", "sampled_softmax", "gbce", "bce"])
def test_every_loss_trains_both_models(dataset, loss):
    for name in ("sasrec", "glintru"):
        config = recommender(name, loss=loss, num_negatives=8, learning_rate=0.01)
        _, result = train(config, dataset, validate=Script(*[0.1] * 4))
        assert result.history[-1].train_loss < result.history[0].train_loss


def test_only_matrices_decay():
    model = torch.nn.Sequential(torch.nn.Embedding(3, 2), torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    decayed, free = build_optimizer(model, TrainingConfig(weight_decay=0.3)).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    assert {id(p) for p in decayed["params"]} == {id(model[0].weight), id(model[1].weight)}
    assert {id(p) for p in free["params"]} == {id(model[1].bias), id(model[2].weight), id(model[2].bias)}


def test_the_learning_rate_rises_and_stays():
    config = TrainingConfig(learning_rate=0.4, warmup_steps=4)
    assert [learning_rate(config, step) for step in (1, 2, 4, 5, 99)] == pytest.approx([0.1, 0.2, 0.4, 0.4, 0.4])
    assert learning_rate(TrainingConfig(learning_rate=0.4), 1) == 0.4


def test_a_step_is_no_longer_than_the_clipped_gradient_allows(dataset):
    torch.manual_seed(0)
    training = trainer._Training(
        recommender(gradient_clip_norm=1e-3),
        dataset,
        trainer.resolve_runtime(TrainingConfig(device="cpu")),
        SingleProcess(torch.device("cpu")),
        None,
        "train",
    )
    training._step(1, next(training.batches.epoch(1)))
    norm = torch.cat([p.grad.flatten() for p in training.model.parameters()]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)
