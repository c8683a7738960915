"""The DAG: one log in, two tuned, trained, evaluated and registered recommenders out.

Each setting travels as JSON text of one config section, so the same parameters serve a local run, a submitted
run and a recurring one. Values that a step produces travel into loops as artifacts only.
"""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Artifact, PipelineTask

from components.build_sequences import build_sequences
from components.compare_and_register import compare_and_register
from components.create_study import create_study
from components.evaluate_recommender import evaluate_recommender
from components.ingest_interactions import ingest_interactions
from components.resolve_source import resolve_source
from components.select_hyperparameters import select_hyperparameters
from components.start_run import start_run
from components.train_recommender import train_recommender
from components.tune_recommender import tune_recommender
from glintru_model.config import PipelineConfig
from pipelines.resources import Profile, place

PIPELINE_NAME = "sequential-recommenders"


class Outputs(NamedTuple):
    """What a pipeline run hands back."""

    summary: Artifact
    report: HTML


class ModelTasks(NamedTuple):
    """The tasks of one model that the comparison reads."""

    select: PipelineTask
    train: PipelineTask
    evaluate: PipelineTask


def build_pipeline(config: PipelineConfig, profile: Profile, *, recurring: bool = False):
    """Build the DAG with `config` as the parameters' defaults and `profile`'s placement on every task.

    Args:
        config: the run's settings; its JSON sections become the defaults of the pipeline's parameters.
        profile: where tasks run and what they ask for.
        recurring: each run is named by the backend that starts it, in place of the parameter `run_name`.

    Returns:
        A kfp pipeline: callable for a local run, compilable to YAML.
    """
    workers = list(range(config.tuning.num_workers))

    @dsl.pipeline(name=PIPELINE_NAME, description="Tune, train, evaluate and register GLINT-RU and SASRec.")
    def sequential_recommenders(
        run_name: str,
        experiment: str = config.name,
        ingest: str = config.ingest.model_dump_json(),
        sequences: str = config.sequences.model_dump_json(),
        glintru: str = config.models.glintru.model_dump_json(),
        sasrec: str = config.models.sasrec.model_dump_json(),
        tuning: str = config.tuning.model_dump_json(),
        evaluation: str = config.evaluation.model_dump_json(),
        registry: str = config.registry.model_dump_json(),
        tuning_workers: list = workers,
        tracking_uri: str = "",
        artifact_location: str = "",
        study_storage: str = "",
        downloads_dir: str = "/tmp/downloads",  # noqa: S108 - inside a task's container
        git_commit: str = "",
        settings: str = config.model_dump_json(),
    ) -> NamedTuple("Outputs", [("summary", Artifact), ("report", HTML)]):
        name_of_run = dsl.PIPELINE_JOB_RESOURCE_NAME_PLACEHOLDER if recurring else run_name

        def placed(task: PipelineTask, name: str) -> PipelineTask:
            return place(task, name, profile)

        source = placed(resolve_source(ingest=ingest, downloads_dir=downloads_dir), "resolve source")
        run = placed(
            start_run(
                run_name=name_of_run,
                experiment=experiment,
                tracking_uri=tracking_uri,
                artifact_location=artifact_location,
                git_commit=git_commit,
                settings=settings,
            ).after(source),
            "start run",
        ).outputs["run"]
        interactions = placed(
            ingest_interactions(ingest=ingest, fingerprint=source.output, downloads_dir=downloads_dir),
            "ingest interactions",
        ).outputs["interactions"]
        dataset = placed(
            build_sequences(
                sequences=sequences, evaluation=evaluation, fingerprint=source.output, interactions=interactions
            ),
            "build sequences",
        ).outputs["dataset"]

        def add_model(recommender: str, name: str) -> ModelTasks:
            """Add one model's tasks: study, parallel workers, selection, training, evaluation."""
            study = placed(
                create_study(
                    recommender=recommender, tuning=tuning, run_name=name_of_run, study_storage=study_storage, run=run
                ),
                f"create study {name}",
            ).outputs["study"]
            with dsl.ParallelFor(
                tuning_workers, name=f"tuning workers {name}", parallelism=profile.parallelism
            ) as worker:
                tune = placed(
                    tune_recommender(
                        recommender=recommender,
                        tuning=tuning,
                        evaluation=evaluation,
                        worker=worker,
                        study=study,
                        dataset=dataset,
                        run=run,
                    ),
                    f"tune {name}",
                )
            select = placed(
                select_hyperparameters(
                    recommender=recommender, study=study, trials=dsl.Collected(tune.outputs["trials"]), run=run
                ),
                f"select {name}",
            )
            train = placed(
                train_recommender(evaluation=evaluation, best=select.outputs["best"], dataset=dataset, run=run),
                f"train {name}",
            )
            evaluate = placed(
                evaluate_recommender(evaluation=evaluation, model=train.outputs["model"], dataset=dataset, run=run),
                f"evaluate {name}",
            )
            return ModelTasks(select, train, evaluate)

        first, second = add_model(glintru, "glintru"), add_model(sasrec, "sasrec")
        end = placed(
            compare_and_register(
                registry=registry,
                interactions=interactions,
                dataset=dataset,
                run=run,
                glintru_best=first.select.outputs["best"],
                glintru_trained=first.train.outputs["model"],
                glintru_evaluated=first.evaluate.outputs["evaluated"],
                sasrec_best=second.select.outputs["best"],
                sasrec_trained=second.train.outputs["model"],
                sasrec_evaluated=second.evaluate.outputs["evaluated"],
            ),
            "compare and register",
        )
        return Outputs(summary=end.outputs["summary"], report=end.outputs["report"])

    return sequential_recommenders
