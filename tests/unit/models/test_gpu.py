import pytest
import torch

from glintru_model.models import gpu


@pytest.mark.parametrize(
    ("compiler", "header", "missing"),
    [
        ("/usr/bin/gcc", True, None),
        (None, True, "no C compiler (gcc, clang or CC) is found"),
        ("/usr/bin/gcc", False, "no Python.h is found"),
        (None, False, "no C compiler (gcc, clang or CC) and no Python.h is found"),
    ],
)
def test_what_kernels_need_beside_triton_is_said(compiler, header, missing, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(gpu, "find_spec", lambda name: object())
    monkeypatch.setattr(gpu.shutil, "which", lambda name: compiler)
    monkeypatch.setattr(gpu.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    if header:
        (tmp_path / "Python.h").touch()
    assert gpu._has_triton.__wrapped__() is (missing is None)
    assert (missing or "") in capsys.readouterr().out
    monkeypatch.setattr(torch.version, "cuda", None)
    assert gpu._has_triton.__wrapped__() is False


def test_a_cpu_has_none_of_them():
    assert not gpu.has_kernels(torch.device("cpu"))
