"""A tuning worker: trials until the study's budget, shared by all its workers, is spent."""

from collections.abc import Callable
from typing import Any

import numpy as np

from glintru_model.config import TuningConfig
from glintru_model.data.sequences import SequenceDataset
from glintru_model.errors import ConfigError, TrainingError
from glintru_model.models.base import SequentialRecommender
from glintru_model.progress import say
from glintru_model.tracking import RunRef, close_pipeline_run, open_child
from glintru_model.tuning.objective import RUN_ATTRIBUTE, WORKER_ATTRIBUTE, Objective, SurplusTrialError
from glintru_model.tuning.search import Recommender
from glintru_model.tuning.storage import resolve_storage, retry_callback, study_errors
from glintru_model.tuning.study import counted_trials, load_study

_DATASET_ATTRIBUTE = "dataset_hash"


def run_worker(
    recommender: Recommender,
    dataset: SequenceDataset,
    config: TuningConfig,
    *,
    storage: str,
    study_name: str,
    worker: int,
    validate: Callable[[SequentialRecommender], dict[str, float]],
    tracker_parent: RunRef,
) -> int:
    """Run trials until `config.num_trials` have been begun by all workers together.

    A worker that is started again first queues the trials that its earlier attempt left behind. With one worker
    the same settings give the same trials, also across an interruption between two of them.

    Args:
        recommender: the configured settings, which the study was opened with.
        dataset: sequences.
        config: budget, length of a trial, seed.
        storage, study_name: as in `open_study`.
        worker: this worker's number, from 0; only one process at a time has it.
        validate: validation metrics of a model, `ndcg_at_10` among them.
        tracker_parent: the pipeline run; the trials' runs lie below its child `tune <model>`.

    Returns:
        How many of the study's trials this worker has run, its earlier attempts included.

    Raises:
        ConfigError: the study's trials were run on another dataset.
        TrackingError: MLflow or the study's storage refuses or is not reachable.
    """
    study = load_study(storage, study_name, pruner=_pruner(config))
    tune_run = open_tune_run(tracker_parent, recommender)
    objective = Objective(recommender, dataset, config, worker=worker, validate=validate, tune_run=tune_run)
    with study_errors(resolve_storage(storage)):
        _refuse_other_dataset(study, dataset)
        _queue_abandoned(study, worker, tune_run)
        while len(counted_trials(study)) < config.num_trials:
            study.sampler = _sampler(config, worker, len(study.get_trials(deepcopy=False)))
            # a pruned trial's traceback holds its whole training, a GPU's memory among it
            study.optimize(objective, n_trials=1, catch=(TrainingError, SurplusTrialError), gc_after_trial=True)
        return sum(trial.user_attrs.get(WORKER_ATTRIBUTE) == worker for trial in counted_trials(study))


def open_tune_run(pipeline: RunRef, recommender: Recommender) -> RunRef:
    """Open the run that a study's trials lie below; the step that creates the study does it before any worker.

    Raises:
        TrackingError: MLflow refuses or is not reachable.
    """
    return open_child(pipeline, f"tune {recommender.name}", {"kind": "tune", "model": recommender.name})


def _pruner(config: TuningConfig) -> Any:
    from optuna.pruners import MedianPruner

    startup = _num_startup_trials(config)
    return MedianPruner(n_startup_trials=startup, n_warmup_steps=config.min_epochs_before_pruning)


def _sampler(config: TuningConfig, worker: int, num_trials: int) -> Any:
    """Make a sampler for the next trial alone, so that a worker started again does not repeat its random draws."""
    from optuna.samplers import TPESampler

    seed = int(np.random.SeedSequence([config.seed, worker, num_trials]).generate_state(1)[0])
    return TPESampler(n_startup_trials=_num_startup_trials(config), seed=seed)


def _num_startup_trials(config: TuningConfig) -> int:
    """Trials before the sampler and the pruner trust what they have seen: a third of the budget, 3 to 10."""
    return min(10, max(3, config.num_trials // 3))


def _refuse_other_dataset(study: Any, dataset: SequenceDataset) -> None:
    found, wanted = study.user_attrs.get(_DATASET_ATTRIBUTE), dataset.manifest.get("dataset_hash", "")
    if found is None:
        study.set_user_attr(_DATASET_ATTRIBUTE, wanted)
    elif found != wanted:
        raise ConfigError(f"study {study.study_name!r} was run on another dataset: remove it or choose another name")


def _queue_abandoned(study: Any, worker: int, tune_run: RunRef) -> None:
    from optuna.trial import TrialState

    queue_again = retry_callback()
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.user_attrs.get(WORKER_ATTRIBUTE) != worker:
            continue
        queue_again(study, study.tell(trial.number, state=TrialState.FAIL))
        say(f"trial {trial.number} was left behind by an earlier attempt of worker {worker}: it is run again")
        if run_id := trial.user_attrs.get(RUN_ATTRIBUTE):
            close_pipeline_run(RunRef(tune_run.tracking_uri, tune_run.experiment_id, run_id), "KILLED")
