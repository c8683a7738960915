"""What training tells: one result per epoch, one in the end."""

from dataclasses import dataclass

CHOSEN_BY = "ndcg_at_10"  # the validation metric that the best epoch has the most of


@dataclass(frozen=True)
class EpochResult:
    """One pass over the training targets.

    Attributes:
        epoch: from 1.
        train_loss: mean over targets.
        validation: metrics after the epoch.
        seconds: training and validation.
        targets_per_second: prediction terms trained per second, without validation.
    """

    epoch: int
    train_loss: float
    validation: dict[str, float]
    seconds: float
    targets_per_second: float


@dataclass(frozen=True)
class TrainingResult:
    """A whole training.

    Attributes:
        best_epoch: from 1.
        best_metrics: validation metrics of that epoch.
        history: every epoch's result.
        seconds: of all epochs, those before an interruption included.
        num_parameters: trained weights.
        peak_memory_bytes: tensors on a GPU, else the whole process.
        stopped: why: "patience", "max_epochs" or "max_seconds".
    """

    best_epoch: int
    best_metrics: dict[str, float]
    history: list[EpochResult]
    seconds: float
    num_parameters: int
    peak_memory_bytes: int
    stopped: str
