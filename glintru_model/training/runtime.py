"""Where training runs: device, precision, threads and random state, set for its time and put back after it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch

from glintru_model.config import TrainingConfig
from glintru_model.errors import ConfigError
from glintru_model.memory import peak_resident_bytes
from glintru_model.training.distributed import local_rank, processes_on_node


@dataclass(frozen=True)
class Runtime:
    """A device that exists and a precision that it has.

    Attributes:
        device: where the model and the training set lie.
        precision: type of the matrix products, on a CPU of cross-entropy's alone; weights are float32.
        num_threads: CPU threads, 0 for torch's own choice.
    """

    device: torch.device
    precision: torch.dtype
    num_threads: int

    @contextmanager
    def active(self) -> Iterator[None]:
        """Set threads and matrix precision; restore them, and torch's random state, at the end."""
        threads, matmul_precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
        devices = [self.device] if self.device.type == "cuda" else []
        # streams, graphs and kernels go to the current device, whatever device their tensors lie on
        current = torch.cuda.device(self.device) if devices else nullcontext()
        with current, torch.random.fork_rng(devices):
            try:
                if self.num_threads:
                    torch.set_num_threads(self.num_threads)
                if self.device.type == "cuda":
                    torch.set_float32_matmul_precision("high")  # TF32 products
                yield
            finally:
                torch.set_num_threads(threads)
                torch.set_float32_matmul_precision(matmul_precision)

    def model_autocast(self) -> torch.autocast:
        """Return a context for the model's layers: on a CPU, where their products are small, bfloat16 does not pay."""
        return self._autocast(self.device.type != "cpu")

    def loss_autocast(self) -> torch.autocast:
        """Return a context in which the loss's matrix products run in `precision`."""
        return self._autocast(True)

    def _autocast(self, applies: bool) -> torch.autocast:
        return torch.autocast(self.device.type, self.precision, enabled=applies and self.precision != torch.float32)

    def peak_memory_bytes(self) -> int:
        """Return the most memory held so far: tensors on a GPU, else the whole process."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        return peak_resident_bytes()


def resolve_runtime(config: TrainingConfig) -> Runtime:
    """Choose the device and check that it can do what is asked.

    Raises:
        ConfigError: the device does not exist, or has no bfloat16 for this loss.
    """
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and processes_on_node() > 1:
        if name != device.type:
            raise ConfigError(f"training.device {name!r}: several processes train, allowed: auto, cuda, cpu")
        device = torch.device("cuda", local_rank())
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ConfigError(f"training.device {name!r}: found {count} CUDA devices, allowed: auto, cpu")
    if config.precision == "bfloat16" and not _has_bfloat16(device):
        raise ConfigError(f"training.precision 'bfloat16': {name} has no support for it, allowed: float32")
    if config.precision == "bfloat16" and device.type == "cpu" and config.loss != "cross_entropy":
        raise ConfigError(
            f"training.precision 'bfloat16': on {name} it is of loss cross_entropy alone, found {config.loss}, "
            "allowed: float32"
        )
    precision = torch.bfloat16 if config.precision == "bfloat16" else torch.float32
    num_threads = config.num_threads
    if device.type == "cpu" and processes_on_node() > 1 and not num_threads:
        num_threads = max(1, torch.get_num_threads() // processes_on_node())
    return Runtime(device, precision, num_threads)


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)
