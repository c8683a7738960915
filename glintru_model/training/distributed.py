"""Training by several processes: each takes its share of every batch, and their gradients are added up.

Every process holds the whole model and goes through the same batches in the same order. Its gradient is weighed by its
share of the batch's targets, so that the sum over processes is the gradient of one process with the same batch.
Torchrun starts the processes, here (`launch`) or on the nodes of a cluster, and says in the environment which is which.
"""

import atexit
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from glintru_model.config import TrainingConfig
from glintru_model.data.batches import Batch
from glintru_model.errors import ConfigError, TrainingError
from glintru_model.models.base import SequentialRecommender
from glintru_model.progress import say
from glintru_model.training.graphs import GraphedBackward
from glintru_model.training.shares import LossOf, backward_in_pieces, share_of

T = TypeVar("T")

# Longer than what the first process does alone while the others wait for it: validation, checkpoints, MLflow.
_WAIT_FOR_FIRST = timedelta(hours=6)
# A process that dies takes its peers' connections along: they wait so long, that its own error is found first.
_GRACE_SECONDS = 5.0
_SEEDS_APART = 10**16  # more than any seed of an epoch


class Processes(Protocol):
    """The processes that train one model, as one of them sees them."""

    rank: int

    def seed(self, seed: int) -> int:
        """Return this process's own seed; the first keeps the one given."""

    def backward(self, model: SequentialRecommender, loss_of: LossOf, batch: Batch) -> Tensor:
        """Leave the gradient of the batch's mean loss in the model, and return that loss."""

    def from_first(self, make: Callable[[], T]) -> T:
        """Return what `make` gives in the first process, a JSON value; in the others it is not called."""


class SingleProcess:
    """One process has nobody to share with; its GPU, if it has one, runs graphs."""

    rank = 0

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = GraphedBackward() if device.type == "cuda" else None

    def seed(self, seed: int) -> int:
        """Return the seed as it is."""
        return seed

    def backward(self, model: SequentialRecommender, loss_of: LossOf, batch: Batch) -> Tensor:
        """Leave the gradient of the batch's mean loss in the model, and return that loss."""
        if self._on_gpu:
            return self._on_gpu(model, loss_of, batch)
        model.zero_grad()
        return backward_in_pieces(loss_of, batch)

    def close(self) -> None:
        """Let go of what the training held on its GPU; a traceback may keep this object alive."""
        self._on_gpu = None

    def from_first(self, make: Callable[[], T]) -> T:
        """Return what `make` gives."""
        return make()


class SeveralProcesses:
    """A share of each batch, one sum over all processes a step.

    Not torch's DistributedDataParallel: it averages over processes whatever their number of targets, and waits for
    ever where a small batch leaves one of them without a sample. One flat buffer that the gradients lie in is all that
    is needed; the loss travels in it too.
    """

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count = rank, count
        self._waiting = dist.new_group(backend="gloo", timeout=_WAIT_FOR_FIRST)
        self._flat: Tensor | None = None

    def seed(self, seed: int) -> int:
        """Return a seed that no other process has."""
        return seed + self.rank * _SEEDS_APART

    def backward(self, model: SequentialRecommender, loss_of: LossOf, batch: Batch) -> Tensor:
        """Leave the gradient of the whole batch's mean loss in every process's model, and return that loss."""
        flat = self._gradients_of(model)
        share = share_of(batch, self.rank, self.count)
        flat[-1] = backward_in_pieces(loss_of, share)
        with self._lost_peer():
            dist.all_reduce(flat)
        return flat[-1].clone()

    def from_first(self, make: Callable[[], T]) -> T:
        """Return what `make` gives in the first process; in the others it is not called."""
        text = json.dumps(make()).encode() if self.rank == 0 else b""
        size = torch.tensor(len(text))
        with self._lost_peer():
            dist.broadcast(size, src=0, group=self._waiting)
            buffer = torch.frombuffer(bytearray(text.ljust(int(size))), dtype=torch.uint8)
            dist.broadcast(buffer, src=0, group=self._waiting)
        return json.loads(buffer.numpy().tobytes())  # type: ignore[no-any-return]

    def _gradients_of(self, model: torch.nn.Module) -> Tensor:
        """Let the gradients be views of one buffer, all zero; its last element is for the loss."""
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        sizes = [parameter.numel() for parameter in parameters]
        if self._flat is None:
            self._flat = torch.empty(sum(sizes) + 1, dtype=parameters[0].dtype, device=parameters[0].device)
        flat = self._flat.zero_()
        for parameter, part in zip(parameters, torch.split(flat[:-1], sizes), strict=True):
            parameter.grad = part.view_as(parameter)
        return flat

    @contextmanager
    def _lost_peer(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            time.sleep(_GRACE_SECONDS)
            problem = str(error).splitlines()[0][:200]
            raise TrainingError(
                f"training process {self.rank} of {self.count} has lost another one, whose error says more: {problem}"
            ) from error


def is_launched() -> bool:
    """Say whether torchrun started this process."""
    return bool(dist.is_torchelastic_launched())


def is_first() -> bool:
    """Say whether this process is the one that writes files and talks to services."""
    return not is_launched() or _from_torchrun("RANK") == 0


def local_rank() -> int:
    """Return which of its node's processes this is, from 0."""
    return _from_torchrun("LOCAL_RANK") if is_launched() else 0


def processes_on_node() -> int:
    """Return how many processes of this training its node has."""
    return _from_torchrun("LOCAL_WORLD_SIZE") if is_launched() else 1


def processes_to_launch(config: TrainingConfig) -> int:
    """Return how many processes are still to be started: 1 where this process shall train, alone or among others.

    Raises:
        ConfigError: more are asked for than there are GPUs to train on.
    """
    if is_launched():
        return 1
    gpus = torch.cuda.device_count() if config.device in ("auto", "cuda") else 0
    wanted = config.num_processes or max(1, gpus)
    if gpus and wanted > gpus:
        raise ConfigError(f"training.num_processes {wanted}: found {gpus} CUDA devices, allowed: 0 to {gpus}")
    return wanted


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun started with this one, for the length of a block; without others, be alone.

    All but the first are silent: they would say the same.
    """
    count = _from_torchrun("WORLD_SIZE") if is_launched() else 1
    if count == 1:
        alone = SingleProcess(device)
        try:
            yield alone
        finally:
            alone.close()
        return
    if not dist.is_initialized():  # a process cannot join twice: the next training takes the same group
        if device.type == "cuda":
            torch.cuda.set_device(device.index or 0)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)
    rank = dist.get_rank()
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere) if rank else nullcontext():
        say(f"training by {count} processes, on {device.type}")
        yield SeveralProcesses(rank, count)


def _from_torchrun(variable: str) -> int:
    return int(os.environ[variable])
