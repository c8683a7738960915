"""Compiles the kernels beside this file for the processor at hand, keeps them for the next process, and calls them."""

import ctypes
import hashlib
import os
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Parameter

from glintru_model.errors import StorageError
from glintru_model.files import atomic_file
from glintru_model.progress import say

WIDTH_MULTIPLE = 16
_SOURCES = sorted(Path(__file__).parent.glob("*.[ch]"))
# sums may be fused with products, but neither reordered nor taken for finite
_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-shared", "-fPIC")
_COMPILE_SECONDS = 120
_ELEMENTS_PER_THREAD = 1 << 15  # less is done before another thread is there


def can_run(x: Tensor, *widths: int) -> bool:
    """Tell whether the kernels can compute x, where these widths are those of its rows; compiles them if need be."""
    return (
        type(x) in (Tensor, Parameter)  # others may hold no numbers
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and all(width % WIDTH_MULTIPLE == 0 for width in widths)
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]
        and kernels() is not None
    )


def is_like(x: Tensor, other: Tensor) -> bool:
    """Tell whether x has the shape, type and device of the other."""
    return x.shape == other.shape and x.dtype == other.dtype and x.device == other.device


def run(kernel: str, count: int, *arguments: Tensor | int | float | None) -> None:
    """Call a kernel for a whole batch, in as many threads as torch has; no gradient goes through it.

    Args:
        kernel: name of a function in the C sources.
        count: number of histories, or of rows, which the threads share.
        arguments: what follows threads and count; tensors are contiguous, in float32 or, where they count, int64; None
            is a null pointer.

    Raises:
        TypeError: a tensor is of another type, or not on the CPU.
        MemoryError: there is none for the kernel's sums.
    """
    elements = max((argument.numel() for argument in arguments if isinstance(argument, Tensor)), default=0)
    threads = torch.get_num_threads()  # or one: OpenMP ends and starts threads where their number changes
    if count == 1 or elements < threads * _ELEMENTS_PER_THREAD:
        threads = 1
    if getattr(kernels(), kernel)(*map(_as_c, (threads, count, *arguments))):
        raise MemoryError(f"{kernel}: no memory for its sums")


def _as_c(argument: Tensor | int | float | None) -> ctypes.c_void_p | ctypes.c_long | ctypes.c_float:
    if argument is None:
        return ctypes.c_void_p(None)
    if isinstance(argument, Tensor):
        if argument.dtype not in (torch.float32, torch.int64) or argument.device.type != "cpu":
            raise TypeError(f"{argument.dtype} on {argument.device}, kernels take torch.float32 and int64 on cpu")
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_long(argument) if isinstance(argument, int) else ctypes.c_float(argument)


@cache
def kernels() -> ctypes.CDLL | None:
    """Return the compiled kernels, or None, said once, where they cannot be compiled."""
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("gcc", "clang", "cc")), None)
    if not compiler:
        say("no C compiler (gcc, clang, cc or CC) is found: the CPU goes without kernels, which is slower", aside=True)
        return None
    try:
        return _compiled(shlex.split(compiler))
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip() or f"exit code {error.returncode}"
    except (OSError, RuntimeError, ValueError, subprocess.TimeoutExpired) as error:  # RuntimeError: there is no home
        reason = str(error)
    reason = reason.splitlines()[0]
    say(f"{compiler} cannot compile the CPU's kernels ({reason}): the CPU goes without, which is slower", aside=True)
    return None


def _compiled(compiler: list[str]) -> ctypes.CDLL:
    processor = _output_of([*compiler, "-march=native", "-dM", "-E", "-x", "c", os.devnull])
    flags = [*_FLAGS, *([] if b"__clang__" in processor else _threads_of_torch())]
    name, folder = f"cpu-kernels-{_key(compiler, flags, processor)}", _cache_folder()
    for path in folder.glob(f"{name}-*.so"):
        if _is_ours(path):
            return ctypes.CDLL(str(path))
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(scratch) / "kernels.so"
        sources = [str(path) for path in _SOURCES if path.suffix == ".c"]
        _output_of([*compiler, "-o", str(built), *sources, *flags, "-lm"])
        say(f"the CPU's kernels are compiled, in {time.monotonic() - begin:.0f} s", aside=True)
        with suppress(StorageError), atomic_file(folder / f"{name}-{_digest(built)}.so") as temporary:
            shutil.copy(built, temporary)  # a container's home may be read-only
        return ctypes.CDLL(str(built))  # needs its file no more


def _threads_of_torch() -> list[str]:
    """Return gcc's flags for the OpenMP library that torch has loaded: threads of another would contend with its own.

    clang's runtime is another, so that its kernels take one thread.
    """
    return ["-fopenmp", "-Wl,--as-needed", *sorted(map(str, Path(torch.__file__).parent.glob("lib/libgomp*.so*")))]


def _is_ours(path: Path) -> bool:
    """Tell whether a file is whole, as the digest in its name says, and no one else could have written it."""
    status = path.stat()
    is_safe = status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return is_safe and path.stem.endswith(f"-{_digest(path)}")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _key(compiler: list[str], flags: list[str], processor: bytes) -> str:
    """Hash what the result depends on: sources, compiler, flags, and the processor in the compiler's eyes."""
    digest = hashlib.sha256(shlex.join([*compiler, *flags]).encode() + processor)
    for path in _SOURCES:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _output_of(command: list[str]) -> bytes:
    return subprocess.run(command, check=True, capture_output=True, timeout=_COMPILE_SECONDS).stdout


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "glintru"
