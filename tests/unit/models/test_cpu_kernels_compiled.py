"""Both models with the kernels and without, for several processors, and what happens where none can be compiled."""

import copy
import ctypes
import os
import subprocess

import pytest
import torch

from glintru_model.config import GlintruConfig, SasrecConfig
from glintru_model.models.cpu_kernels import compiled
from glintru_model.models.glintru import GLINTRU
from glintru_model.models.sasrec import SASRec
from glintru_model.training.cross_entropy import cross_entropy

MODELS = {
    "glintru": GLINTRU(GlintruConfig(embedding_dim=64, num_blocks=2, dropout_rate=0), 30),
    "glintru-one-block": GLINTRU(GlintruConfig(embedding_dim=64, dropout_rate=0), 30),
    "glintru-paper": GLINTRU(GlintruConfig(embedding_dim=64, variant="paper", dropout_rate=0), 30),
    "sasrec": SASRec(SasrecConfig(embedding_dim=32, dropout_rate=0), 30),
}


def gradients(model):
    """The loss over a small catalogue, and its gradients by every weight."""
    model = copy.deepcopy(model).train()
    torch.manual_seed(1)
    item_ids, lengths = torch.randint(1, 31, (4, 20)), torch.tensor([20, 20, 7, 1])
    is_item = torch.arange(20) < lengths[:, None]
    hidden = model.prefixes(item_ids * is_item, lengths)[is_item]
    loss = cross_entropy(hidden, model.item_embedding.weight, item_ids[is_item])
    loss.backward()
    found = {name: x.grad for name, x in model.named_parameters() if x.grad is not None}
    return found | {"hidden": hidden.detach(), "loss": loss.detach()}


def inference(model):
    """Vectors of every position, of the newest alone, and of many histories' newest."""
    model = copy.deepcopy(model).eval()
    torch.manual_seed(1)
    item_ids, lengths = torch.randint(1, 31, (40, 20)), torch.arange(40) % 20 + 1
    is_item = torch.arange(20) < lengths[:, None]
    with torch.no_grad():
        hidden = model.encode(item_ids * is_item, lengths)
        few = model.last_hidden((item_ids * is_item)[:5], lengths[:5])
        return {"hidden": hidden[is_item], "few": few, "many": model.last_hidden(item_ids * is_item, lengths)}


def assert_alike(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= 2e-5 * value.abs().max(), name


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_model_learns_the_same_with_kernels_and_without(model, kernels, monkeypatch):
    found = gradients(model)
    assert len(set(kernels)) >= 2
    kernels.clear()
    monkeypatch.setattr(compiled, "kernels", lambda: None)
    assert_alike(found, gradients(model))
    assert not kernels


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_model_ranks_the_same_with_kernels_and_without(model, kernels, monkeypatch):
    found = inference(model)
    assert {"transformer", "recurrence_forward"} & set(kernels)
    kernels.clear()
    monkeypatch.setattr(compiled, "kernels", lambda: None)
    assert_alike(found, inference(model))
    assert not kernels


@pytest.mark.slow
@pytest.mark.parametrize("processor", ["native", "haswell", "x86-64"])
def test_the_sources_compile_without_a_warning_for_vectors_of_any_width(processor, kernels, tmp_path, monkeypatch):
    if processor != "native" and os.uname().machine != "x86_64":
        pytest.skip("another kind of processor")
    if processor == "haswell" and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("no AVX2")
    sources = [str(path) for path in compiled._SOURCES if path.suffix == ".c"]
    flags = [flag.replace("native", processor) for flag in compiled._FLAGS] + compiled._threads_of_torch()
    built = tmp_path / "kernels.so"
    command = ["gcc", *flags, "-Wall", "-Wextra", "-std=gnu11", "-o", str(built), *sources, "-lm"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stderr == ""
    narrow = ctypes.CDLL(str(built))
    for model in MODELS.values():
        monkeypatch.setattr(compiled, "kernels", lambda: narrow)
        found = gradients(model) | inference(model)
        monkeypatch.setattr(compiled, "kernels", lambda: None)
        assert_alike(found, gradients(model) | inference(model))
    assert len(set(kernels)) >= 9


@pytest.fixture
def compile_anew(monkeypatch, tmp_path, kernels):
    """`kernels` as a new process would call it, its files in a folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    return compiled.kernels.__wrapped__


def test_what_is_compiled_is_kept_and_made_again_if_damaged(compile_anew, tmp_path, monkeypatch, capsys):
    assert isinstance(compile_anew(), ctypes.CDLL)
    said = capsys.readouterr()
    assert "the CPU's kernels are compiled" in said.err
    assert said.out == ""  # may be the caller's data
    [kept] = (tmp_path / "glintru").iterdir()
    assert isinstance(compile_anew(), ctypes.CDLL)
    assert capsys.readouterr().err == ""
    whole = kept.read_bytes()
    for spoil in (lambda: kept.write_bytes(whole[:5000]), lambda: kept.chmod(0o666)):
        kept.unlink()
        kept.write_bytes(whole)
        spoil()  # a process that loads it may die, or run what another user wrote
        assert isinstance(compile_anew(), ctypes.CDLL)
        assert "compiled" in capsys.readouterr().err
        assert kept.read_bytes() == whole
    monkeypatch.setattr(compiled, "_FLAGS", (*compiled._FLAGS, "-g"))
    compile_anew()
    assert len(list(kept.parent.iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_done_without(compile_anew, tmp_path, monkeypatch, capsys):
    (tmp_path / "glintru").write_text("a file where the folder should be")
    assert isinstance(compile_anew(), ctypes.CDLL)
    assert "compiled" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("compiler", "message"),
    [
        (None, "no C compiler (gcc, clang, cc or CC) is found"),
        ("no-such-cc", "no-such-cc cannot compile"),
        ("false", "(exit code 1)"),
        ('"', "(No closing"),
    ],
)
def test_without_a_compiler_a_line_says_so(compiler, message, compile_anew, monkeypatch, capsys):
    if compiler:
        monkeypatch.setenv("CC", compiler)
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    assert compile_anew() is None
    said = capsys.readouterr()
    assert message in said.err
    assert (said.err.count("\n"), said.out) == (1, "")
