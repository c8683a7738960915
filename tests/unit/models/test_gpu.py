import pytest
import torch

from glintru_model.models import gpu


@pytest.mark.parametrize(("compiler", "expected"), [("/usr/bin/gcc", True), (None, False)])
def test_kernels_need_triton_and_a_compiler_and_their_absence_is_said(compiler, expected, monkeypatch, capsys):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(gpu, "find_spec", lambda name: object())
    monkeypatch.setattr(gpu.shutil, "which", lambda name: compiler)
    monkeypatch.delenv("CC", raising=False)
    assert gpu._has_triton.__wrapped__() is expected
    assert ("no C compiler" in capsys.readouterr().out) is not expected
    monkeypatch.setattr(torch.version, "cuda", None)
    assert gpu._has_triton.__wrapped__() is False


def test_a_cpu_has_none_of_them():
    assert not gpu.has_kernels(torch.device("cpu"))
