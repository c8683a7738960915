"""Training of any model: epochs over targets, validation after each, the best epoch's weights in the end."""

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glintru_model.config import GlintruRecommender, SasrecRecommender
from glintru_model.data.batches import Batch, TrainingBatches
from glintru_model.data.sequences import SequenceDataset
from glintru_model.errors import TrainingError
from glintru_model.memory import FreedMemory
from glintru_model.models.base import SequentialRecommender
from glintru_model.models.registry import build_model
from glintru_model.progress import Progress, format_seconds, say
from glintru_model.training.averaging import build_averaging
from glintru_model.training.checkpoint import Restorable, TrainingState, load_checkpoint, save_checkpoint
from glintru_model.training.distributed import Processes, joined
from glintru_model.training.losses import build_loss
from glintru_model.training.optimizer import build_optimizer, learning_rate, set_learning_rate
from glintru_model.training.results import CHOSEN_BY, EpochResult, TrainingResult
from glintru_model.training.runtime import Runtime, resolve_runtime
from glintru_model.training.warm_start import warm_start

__all__ = ["EpochResult", "TrainingResult", "train"]

Validate = Callable[[SequentialRecommender], dict[str, float]]
OnEpoch = Callable[[EpochResult], None]

_SAY_EVERY_SECONDS = 2.0


def train(
    config: GlintruRecommender | SasrecRecommender,
    dataset: SequenceDataset,
    *,
    validate: Validate,
    on_epoch: OnEpoch | None = None,
    checkpoint_dir: Path | None = None,
    title: str = "",
) -> tuple[SequentialRecommender, TrainingResult]:
    """Train a model from scratch, or go on where an interrupted training of the same settings and data stopped.

    Started by torchrun, each process calls it with the same arguments and takes its share of every batch; the first
    alone validates, tells of epochs and writes.

    Args:
        config: the model and how to train it.
        dataset: sequences; their training part alone is read.
        validate: metrics of the model on validation, `ndcg_at_10` among them; the best epoch has the most of it.
        on_epoch: told of each epoch once its checkpoint is written; what it raises ends the training.
        checkpoint_dir: where a checkpoint is written after each epoch; None writes none.
        title: opens each line of progress; `train <model>` if empty.

    Returns:
        The model with the best epoch's weights, in evaluation mode on the training device, and what happened.

    Raises:
        ConfigError: the device or the precision does not exist here.
        DataError: nothing to train on, an item outside the vocabulary, or a damaged checkpoint.
        TrainingError: loss or gradient are not finite; the last checkpoint stays.
    """
    runtime = resolve_runtime(config.training)
    with runtime.active(), joined(runtime.device) as processes:
        training = _Training(config, dataset, runtime, processes, checkpoint_dir, title or f"train {config.name}")
        return training.model, training.run(validate, on_epoch)


class _Training:
    def __init__(
        self,
        config: GlintruRecommender | SasrecRecommender,
        dataset: SequenceDataset,
        runtime: Runtime,
        processes: Processes,
        checkpoint_dir: Path | None,
        title: str,
    ) -> None:
        self.settings, self.runtime, self.checkpoint_dir = config.training, runtime, checkpoint_dir
        self.processes = processes
        self.title, self.last_said = title, 0.0
        torch.manual_seed(self.settings.seed)
        self.model = build_model(config, dataset.num_items).to(runtime.device)
        if self.settings.warm_start_from:
            num_new = warm_start(self.model, dataset.vocabulary, Path(self.settings.warm_start_from))
            say(f"{self.title}: warm start from {self.settings.warm_start_from}, {num_new:,} items are new")
        self.optimizer = build_optimizer(self.model, self.settings)
        self.averaging = build_averaging(self.model, self.settings.ema_decay)
        self.loss = build_loss(self.settings, dataset.vocabulary.train_counts, runtime.device)
        self.batches = TrainingBatches(
            dataset,
            max_seq_len=config.architecture.max_seq_len,
            batch_size=self.settings.batch_size,
            every_position=self.model.trains_every_position,
            seed=self.settings.seed,
            device=runtime.device,
        )
        data = [dataset.manifest.get("dataset_hash"), dataset.num_items, self.batches.num_targets]
        self.fingerprint = json.dumps([config.model_dump(), data], sort_keys=True)
        self.state = TrainingState()
        self.memory = FreedMemory()

    def run(self, validate: Validate, on_epoch: OnEpoch | None) -> TrainingResult:
        num_parameters = sum(parameter.numel() for parameter in self.model.parameters())
        self._resume()
        while not (stopped := self._reason_to_stop()):
            result = self._epoch(len(self.state.history) + 1, validate)
            if on_epoch:
                self.processes.from_first(partial(on_epoch, result))
        self.model.load_state_dict(self.state.best_weights)
        self.model.eval()
        best = self.state.history[self.state.best_epoch - 1]
        seconds = sum(result.seconds for result in self.state.history)
        say(
            f"{self.title}: stopped by {stopped} after {format_seconds(seconds)}, best epoch {best.epoch}, "
            f"validation NDCG@10 {best.validation[CHOSEN_BY]:.4f}"
        )
        return TrainingResult(
            best_epoch=best.epoch,
            best_metrics=best.validation,
            history=self.state.history,
            seconds=seconds,
            num_parameters=num_parameters,
            peak_memory_bytes=self.runtime.peak_memory_bytes(),
            stopped=stopped,
        )

    def _resume(self) -> None:
        if not self.checkpoint_dir:
            return
        state = load_checkpoint(self.checkpoint_dir, self.fingerprint, self._restorable())
        own = len(state.history) if state else 0
        first = self.processes.from_first(lambda: own)
        if own != first:
            raise TrainingError(
                f"{self.checkpoint_dir}: process {self.processes.rank} finds epoch {own} there, the first process "
                f"epoch {first}; all nodes must mount the same folder"
            )
        if state:
            self.state = state
            say(f"{self.title}: going on after epoch {len(state.history)} from {self.checkpoint_dir}")

    def _restorable(self) -> dict[str, Restorable]:
        return {"model": self.model, "optimizer": self.optimizer, "averaging": self.averaging}

    def _reason_to_stop(self) -> str:
        epochs, settings = len(self.state.history), self.settings
        if epochs and epochs - self.state.best_epoch >= settings.patience:
            return "patience"
        if epochs >= settings.max_epochs:
            return "max_epochs"
        return "max_seconds" if epochs and self._is_out_of_time(0) else ""

    def _is_out_of_time(self, running_seconds: float) -> bool:
        limit = self.settings.max_seconds
        return bool(limit) and sum(result.seconds for result in self.state.history) + running_seconds >= limit

    def _epoch(self, epoch: int, validate: Validate) -> EpochResult:
        start = time.monotonic()
        train_loss, num_targets = self._train_epoch(epoch, start)
        trained = time.monotonic()
        kept = self.averaging.model.eval()

        def validated() -> dict[str, Any]:
            metrics = dict(validate(kept))
            speed = num_targets / (trained - start)
            return asdict(EpochResult(epoch, train_loss, metrics, time.monotonic() - start, speed))

        # one result for all: whether to stop follows from it
        result = EpochResult(**self.processes.from_first(validated))
        self._remember(result)
        return result

    def _train_epoch(self, epoch: int, start: float) -> tuple[float, int]:
        """Train until the epoch's or the training's end; returns the mean loss and the number of targets."""
        # a resumed epoch draws what it would have drawn, and no process what another draws
        torch.manual_seed(self.processes.seed(self.settings.seed * 1_000_003 + epoch))
        self.model.train()
        progress = Progress(f"{self.title} epoch {epoch}", self.batches.num_targets, "targets")
        loss_sum, done = 0.0, 0
        for batch in self.batches.epoch(epoch):
            loss = self._step(epoch, batch)
            self.memory.give_back()
            loss_sum, done = loss_sum + loss * len(batch.targets), done + len(batch.targets)
            if done < self.batches.num_targets:
                progress.update(done, f"loss {loss:.3f}")
            if self.settings.max_seconds and self.processes.from_first(
                lambda: self._is_out_of_time(time.monotonic() - start)
            ):
                break
        return loss_sum / done, done

    def _step(self, epoch: int, batch: Batch) -> float:
        self.state.step += 1
        set_learning_rate(self.optimizer, learning_rate(self.settings, self.state.step))
        loss = self.processes.backward(self.model, self._loss, batch)
        limit = self.settings.gradient_clip_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        value, gradient = torch.stack([loss.float(), norm.float()]).tolist()
        if not math.isfinite(value) or not math.isfinite(gradient):
            digest = hashlib.sha256(batch.item_ids.cpu().numpy().tobytes()).hexdigest()[:16]
            raise TrainingError(
                f"{self.title}: loss {value} with gradient norm {gradient} at step {self.state.step} (epoch {epoch}, "
                f"batch sha256 {digest}), both must be finite; a lower learning_rate may help"
            )
        self.optimizer.step()
        self.averaging.update()
        return float(value)

    def _loss(self, batch: Batch) -> Tensor:
        with self.runtime.model_autocast():
            if self.model.trains_every_position:
                places_N = batch.rows * batch.item_ids.shape[1] + batch.positions
                # select, not index, whose gradient sorts the places first
                hidden_ND = self.model.prefixes(batch.item_ids, batch.lengths).flatten(0, 1).index_select(0, places_N)
            else:
                hidden_ND = self.model.newest(batch.item_ids, batch.lengths)
        with self.runtime.loss_autocast():
            return self.loss(hidden_ND, self.model.item_embedding.weight, batch.targets, batch.weights)

    def _remember(self, result: EpochResult) -> None:
        state, value = self.state, result.validation[CHOSEN_BY]
        state.history.append(result)
        is_best = not state.best_epoch or value > state.history[state.best_epoch - 1].validation[CHOSEN_BY]
        if is_best:
            state.best_epoch = result.epoch
            weights = self.averaging.model.state_dict()
            state.best_weights = {name: weight.detach().cpu().clone() for name, weight in weights.items()}
        if self.checkpoint_dir and self.processes.rank == 0:
            save_checkpoint(self.checkpoint_dir, self.fingerprint, state, self._restorable())
        self._tell(result, value, is_best=is_best)

    def _tell(self, result: EpochResult, value: float, *, is_best: bool) -> None:
        """Say how an epoch went; of epochs shorter than `_SAY_EVERY_SECONDS` not each one."""
        now = time.monotonic()
        if now - self.last_said < _SAY_EVERY_SECONDS and result.epoch < self.settings.max_epochs:
            return
        self.last_said = now
        left = format_seconds((self.settings.max_epochs - result.epoch) * result.seconds)
        say(
            f"{self.title}: epoch {result.epoch}/{self.settings.max_epochs}, loss {result.train_loss:.4f}, "
            f"validation NDCG@10 {value:.4f}{' (best)' if is_best else ''}, "
            f"{result.targets_per_second:,.0f} targets/s, at most {left} left"
        )
