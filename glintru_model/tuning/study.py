"""A study: created in one step before its workers, read in one step after them."""

import json
import math
from typing import Any

from glintru_model.config import TuningConfig
from glintru_model.errors import ConfigError, TrackingError, TrainingError
from glintru_model.tuning.search import Recommender, configured_values, search_space, with_values
from glintru_model.tuning.storage import open_storage, resolve_storage, study_errors

_SETTINGS_ATTRIBUTE = "settings"
SURPLUS_ATTRIBUTE = "surplus"


def open_study(storage: str, study_name: str, config: TuningConfig, recommender: Recommender) -> None:
    """Create a study, with the configured settings as its first trial; a second call finds it.

    Args:
        storage: `journal:PATH` or a database URL; "" means the environment's GLINTRU_STUDY_STORAGE.
        study_name: unique in the storage.
        config: the trials' length and the seed; the number of trials may differ between calls.
        recommender: the configured settings.

    Raises:
        ConfigError: there is no storage, or a study of that name was made with other settings.
        TrackingError: the storage is not reachable.
    """
    address = resolve_storage(storage)
    handle = open_storage(address, create=True)
    import optuna

    settings = _settings(config, recommender)
    with study_errors(address, OSError):
        study = optuna.create_study(storage=handle, study_name=study_name, direction="maximize", load_if_exists=True)
        found = study.user_attrs.setdefault(_SETTINGS_ATTRIBUTE, settings)
        if found != settings:
            raise ConfigError(f"study {study_name!r} was made with other settings: remove it or choose another name")
        study.set_user_attr(_SETTINGS_ATTRIBUTE, settings)
        if not study.get_trials(deepcopy=False):
            study.enqueue_trial(configured_values(recommender))


def load_study(storage: str, study_name: str, *, sampler: Any = None, pruner: Any = None) -> Any:
    """Open a study that exists.

    Raises:
        ConfigError: there is no storage.
        TrackingError: there is no such study, or its storage is not reachable.
    """
    address = resolve_storage(storage)
    handle = open_storage(address, create=False)
    import optuna

    with study_errors(address, OSError):
        try:
            return optuna.load_study(study_name=study_name, storage=handle, sampler=sampler, pruner=pruner)
        except KeyError as error:
            raise TrackingError(f"study {study_name!r} does not exist: create it first") from error


def best_recommender(
    storage: str, study_name: str, recommender: Recommender
) -> tuple[Recommender, list[dict[str, Any]]]:
    """Read a study whose workers have ended.

    Args:
        storage, study_name: as in `open_study`.
        recommender: the configured settings; all that is not tuned (also the length of a training) stays.

    Returns:
        The best trial's settings, and all trials as `trial_rows` gives them.

    Raises:
        TrackingError: there is no such study, or its storage is not reachable.
        TrainingError: no trial has completed.
    """
    trials = _trials(storage, study_name)
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    if not complete:
        errors = [trial.user_attrs["error"] for trial in trials if "error" in trial.user_attrs]
        reason = f"; the first error: {errors[0]}" if errors else ""
        raise TrainingError(f"study {study_name!r}: none of {len(trials)} trials completed{reason}")
    best = max(complete, key=lambda trial: (trial.value, -trial.number))
    return with_values(recommender, best.params), [_row(trial) for trial in trials]


def trial_rows(storage: str, study_name: str) -> list[dict[str, Any]]:
    """Tabulate a study's trials.

    Returns:
        One flat mapping per trial: number, state (`complete`, `pruned`, `failed`, `running`), value (the best
        validation ndcg_at_10 of its epochs, or None), epochs, seconds, and each hyperparameter under its name.

    Raises:
        TrackingError: there is no such study, or its storage is not reachable.
    """
    return [_row(trial) for trial in _trials(storage, study_name)]


def counted_trials(study: Any) -> list[Any]:
    """List the trials that count against the budget: all that were begun.

    Not counted are those that wait, those begun beyond the budget by workers that were equally fast, and those
    whose worker vanished and that were queued again.
    """
    trials = study.get_trials(deepcopy=False)
    repeated = {number for trial in trials for number in trial.system_attrs.get("retry_history", [])}
    return [
        trial
        for trial in trials
        if trial.state.name != "WAITING"
        and trial.number not in repeated
        and not trial.user_attrs.get(SURPLUS_ATTRIBUTE)
    ]


def _trials(storage: str, study_name: str) -> list[Any]:
    study = load_study(storage, study_name)
    with study_errors(resolve_storage(storage), OSError):
        return counted_trials(study)


def _row(trial: Any) -> dict[str, Any]:
    reported = [value for value in trial.intermediate_values.values() if math.isfinite(value)]
    return {
        "number": trial.number,
        "state": {"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower()),
        "value": max(reported, default=None),
        "epochs": len(trial.intermediate_values),
        "seconds": round(trial.duration.total_seconds(), 1) if trial.duration else None,
        **trial.params,
    }


def _settings(config: TuningConfig, recommender: Recommender) -> str:
    """Write down all that decides about a trial's outcome."""
    trial = config.model_dump(include={"max_epochs", "min_epochs_before_pruning", "seed"})
    space = {name: vars(found) for name, found in search_space(recommender).items()}
    return json.dumps([trial, space, recommender.model_dump()], sort_keys=True)
