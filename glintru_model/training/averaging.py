"""The moving average of the weights over the steps, which ranks better than the weights of any one step."""

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from glintru_model.models.base import SequentialRecommender


class Averaging(Protocol):
    """What is validated and kept of a training.

    Attributes:
        model: holds those weights.
    """

    model: SequentialRecommender

    def update(self) -> None:
        """Take the weights after a step."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""


class NoAveraging:
    """The weights of the last step."""

    def __init__(self, model: SequentialRecommender) -> None:
        self.model = model

    def update(self) -> None:
        """Do nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the model's own weights are in the checkpoint."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing."""


class MovingAverage:
    """Each step the average moves by 1 - decay to the new weights; by more in the first steps, to forget the start."""

    def __init__(self, model: SequentialRecommender, decay: float) -> None:
        self._trained, self._decay = model, decay
        self._averaged = AveragedModel(model, multi_avg_fn=self._move)
        self.model = cast(SequentialRecommender, self._averaged.module)

    def update(self) -> None:
        """Take the weights after a step."""
        self._averaged.update_parameters(self._trained)

    def state_dict(self) -> dict[str, Any]:
        """Return the average and the number of steps in it."""
        return self._averaged.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._averaged.load_state_dict(state_dict)

    @torch.no_grad()
    def _move(self, averages: Sequence[Tensor], weights: Sequence[Tensor], _: Tensor | int) -> None:
        steps = int(self._averaged.n_averaged)  # on the host; the copy that is handed over may lie on a GPU
        share = 1 - min(self._decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(list(averages), list(weights), share)


def build_averaging(model: SequentialRecommender, decay: float) -> Averaging:
    """Average with this decay, or not at all where it is 0."""
    return MovingAverage(model, decay) if decay else NoAveraging(model)
