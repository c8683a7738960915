"""The tasks of one model in the DAG: study, parallel workers, selection, training, evaluation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from kfp import dsl
from kfp.dsl import PipelineTask

from components.create_study import create_study
from components.evaluate_recommender import evaluate_recommender
from components.select_hyperparameters import select_hyperparameters
from components.train_recommender import train_recommender
from components.tune_recommender import tune_recommender


class ModelTasks(NamedTuple):
    """The tasks of one model that the comparison reads."""

    select: PipelineTask
    train: PipelineTask
    evaluate: PipelineTask


@dataclass(frozen=True)
class Shared:
    """What every model's tasks read: parameters and artifacts of the pipeline, and how a task is placed."""

    place: Callable[[PipelineTask, str], PipelineTask]
    parallelism: int
    run_name: Any
    run: Any
    dataset: Any
    tuning: Any
    tuning_workers: Any
    evaluation: Any
    study_storage: Any


def add_model(shared: Shared, recommender: Any, name: str) -> ModelTasks:
    """Add one model's tasks to the pipeline that is being built."""
    best = _add_tuning(shared, recommender, name)
    dataset, run, evaluation = shared.dataset, shared.run, shared.evaluation
    train = shared.place(
        train_recommender(evaluation=evaluation, best=best.outputs["best"], dataset=dataset, run=run), f"train {name}"
    )
    evaluate = shared.place(
        evaluate_recommender(evaluation=evaluation, model=train.outputs["model"], dataset=dataset, run=run),
        f"evaluate {name}",
    )
    return ModelTasks(best, train, evaluate)


def _add_tuning(shared: Shared, recommender: Any, name: str) -> PipelineTask:
    study = shared.place(
        create_study(
            recommender=recommender,
            tuning=shared.tuning,
            run_name=shared.run_name,
            study_storage=shared.study_storage,
            run=shared.run,
        ),
        f"create study {name}",
    ).outputs["study"]
    workers = dsl.ParallelFor(shared.tuning_workers, name=f"tuning workers {name}", parallelism=shared.parallelism)
    with workers as worker:
        tune = shared.place(
            tune_recommender(
                recommender=recommender,
                tuning=shared.tuning,
                evaluation=shared.evaluation,
                worker=worker,
                study=study,
                dataset=shared.dataset,
                run=shared.run,
            ),
            f"tune {name}",
        )
    trials = dsl.Collected(tune.outputs["trials"])
    return shared.place(
        select_hyperparameters(recommender=recommender, study=study, trials=trials, run=shared.run), f"select {name}"
    )
