"""What an interrupted training needs to go on as if nothing had happened."""

import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from glintru_model.errors import DataError, StorageError
from glintru_model.files import atomic_file
from glintru_model.training.results import EpochResult

CHECKPOINT_FILE = "checkpoint.pt"


class Restorable(Protocol):
    """A part of training that can say where it stands and go on from there."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Take them back."""


@dataclass
class TrainingState:
    """Where training stands after an epoch, besides model, optimiser and average.

    Attributes:
        step: optimiser steps so far.
        history: one result per finished epoch.
        best_epoch: the epoch of the best validation metric, from 1; 0 before the first.
        best_weights: the model's state then, on the CPU.
    """

    step: int = 0
    history: list[EpochResult] = field(default_factory=list)
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)


def save_checkpoint(
    directory: Path,
    fingerprint: str,
    state: TrainingState,
    parts: Mapping[str, Restorable],
) -> None:
    """Write a checkpoint whole or not at all; it takes the place of the one before.

    Args:
        directory: where it is written.
        fingerprint: settings and data.
        state: where training stands.
        parts: whatever else changes while training, by name.

    Raises:
        StorageError: the disk refused.
    """
    content = {
        "fingerprint": fingerprint,
        "step": state.step,
        "history": [asdict(result) for result in state.history],
        "best_epoch": state.best_epoch,
        "best_weights": state.best_weights,
        "parts": {name: part.state_dict() for name, part in parts.items()},
    }
    with atomic_file(directory / CHECKPOINT_FILE) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # its writer does not raise OSError
            problem = str(error).splitlines()[0]
            raise StorageError(f"{directory / CHECKPOINT_FILE}: cannot write, is the disk full? {problem}") from error


def load_checkpoint(
    directory: Path,
    fingerprint: str,
    parts: Mapping[str, Restorable],
) -> TrainingState | None:
    """Restore the parts and return the state, or None where there is no checkpoint of this training.

    Args:
        directory: where `save_checkpoint` wrote.
        fingerprint: settings and data; a checkpoint of others is left alone.
        parts: built from the same settings.

    Raises:
        DataError: the file is not a whole checkpoint.
    """
    path = directory / CHECKPOINT_FILE
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if content["fingerprint"] != fingerprint:
            return None
        state = TrainingState(
            step=content["step"],
            history=[EpochResult(**result) for result in content["history"]],
            best_epoch=content["best_epoch"],
            best_weights=content["best_weights"],
        )
        for name, part in parts.items():
            part.load_state_dict(content["parts"][name])
    except (OSError, EOFError, pickle.UnpicklingError, RuntimeError, KeyError, TypeError, ValueError) as error:
        problem = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not a whole checkpoint, remove it to start anew: {problem}") from error
    return state
