"""One trial: settings from Optuna, a short training, a verdict after every epoch."""

import math
from collections.abc import Callable
from typing import Any

import torch

from glintru_model.config import TuningConfig
from glintru_model.data.sequences import SequenceDataset
from glintru_model.errors import TrainingError
from glintru_model.models.base import SequentialRecommender
from glintru_model.progress import say
from glintru_model.tracking import RunRef, Tracker, child_run
from glintru_model.training.trainer import EpochResult, train
from glintru_model.tuning.search import Recommender, configured_values, search_space, suggest, with_values
from glintru_model.tuning.study import SURPLUS_ATTRIBUTE, counted_trials

MAIN_METRIC = "ndcg_at_10"
WORKER_ATTRIBUTE, RUN_ATTRIBUTE = "worker", "run_id"


class SurplusTrialError(Exception):
    """The trial was begun in the moment in which another worker took the last of the budget."""


class Objective:
    """What a worker has Optuna maximise: the best validation NDCG@10 of a short training."""

    def __init__(
        self,
        recommender: Recommender,
        dataset: SequenceDataset,
        config: TuningConfig,
        *,
        worker: int,
        validate: Callable[[SequentialRecommender], dict[str, float]],
        tune_run: RunRef,
    ) -> None:
        self._dataset, self._config, self._worker = dataset, config, worker
        self._validate, self._tune_run = validate, tune_run
        short = {"max_epochs": min(config.max_epochs, recommender.training.max_epochs)}
        self._recommender = recommender.model_copy(update={"training": recommender.training.model_copy(update=short)})
        self._space, self._configured = search_space(recommender), configured_values(recommender)

    def __call__(self, trial: Any) -> float:
        """Run the trial in an MLflow run of its own: FINISHED, KILLED when pruned, or FAILED.

        Raises:
            TrialPruned: it does worse than half of the trials did at that epoch.
            SurplusTrialError: the budget is spent.
            TrainingError: the training failed.
        """
        import optuna

        trial.set_user_attr(WORKER_ATTRIBUTE, self._worker)
        earlier = [other for other in counted_trials(trial.study) if other.number < trial.number]
        if len(earlier) >= self._config.num_trials:
            trial.set_user_attr(SURPLUS_ATTRIBUTE, True)
            raise SurplusTrialError
        values = suggest(trial, self._space)
        title = f"tune {self._recommender.name}: trial {len(earlier) + 1}/{self._config.num_trials}"
        say(f"{title} with " + ", ".join(f"{name.partition('.')[2]} {value:.3g}" for name, value in values.items()))
        tags = {"kind": "trial", "model": self._recommender.name, "trial": trial.number, "worker": self._worker}
        try:
            with child_run(self._tune_run, f"trial {trial.number}", tags, killed_by=(optuna.TrialPruned,)) as tracker:
                trial.set_user_attr(RUN_ATTRIBUTE, tracker.ref.run_id)
                tracker.log_params(values)
                value = self._train(trial, values, tracker)
        except optuna.TrialPruned as pruned:
            say(f"{title} pruned {pruned}")
            raise
        except TrainingError as error:
            trial.set_user_attr("error", str(error))
            say(f"{title} failed: {error}")
            raise
        say(f"{title}: validation NDCG@10 {value:.4f}")
        return value

    def _train(self, trial: Any, values: dict[str, Any], tracker: Tracker) -> float:
        import optuna

        def on_epoch(result: EpochResult) -> None:
            value = result.validation[MAIN_METRIC]
            if not math.isfinite(value):
                raise TrainingError(f"validation {MAIN_METRIC} is {value} after epoch {result.epoch}")
            validation = {f"val/{name}": figure for name, figure in result.validation.items()}
            tracker.log_metrics({**validation, "train/loss": result.train_loss}, result.epoch)
            trial.report(value, result.epoch)
            # the configured settings run to their end, so that the best can never be worse than they are
            if values != self._configured and trial.should_prune():
                raise optuna.TrialPruned(f"after epoch {result.epoch}, validation NDCG@10 {value:.4f}")

        try:
            config = with_values(self._recommender, values)
            title = f"tune {config.name} trial {trial.number + 1}"
            _, result = train(config, self._dataset, validate=self._validate, on_epoch=on_epoch, title=title)
        except torch.OutOfMemoryError as error:
            raise TrainingError(f"out of memory with these settings: {str(error).splitlines()[0]}") from error
        tracker.log_metrics({f"best/val/{name}": figure for name, figure in result.best_metrics.items()})
        return float(result.best_metrics[MAIN_METRIC])
