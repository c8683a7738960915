"""The DAG: one log in, two tuned, trained, evaluated and registered recommenders out.

Each setting travels as JSON text of one config section, so the same parameters serve a local run, a submitted
run and a recurring one. Values that a step produces travel into loops as artifacts only.
"""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Artifact, PipelineTask

from components.build_sequences import build_sequences
from components.compare_and_register import compare_and_register
from components.ingest_interactions import ingest_interactions
from components.resolve_source import resolve_source
from components.start_run import start_run
from glintru_model.config import PipelineConfig
from pipelines.model_tasks import Shared, add_model
from pipelines.resources import Profile, place

PIPELINE_NAME = "sequential-recommenders"


class Outputs(NamedTuple):
    """What a pipeline run hands back."""

    summary: Artifact
    report: HTML


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

        source = placed(
            resolve_source(
                ingest=ingest, sequences=sequences, glintru=glintru, sasrec=sasrec, downloads_dir=downloads_dir
            ),
            "resolve source",
        )
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

        shared = Shared(
            place=placed,
            parallelism=profile.parallelism,
            run_name=name_of_run,
            run=run,
            dataset=dataset,
            tuning=tuning,
            tuning_workers=tuning_workers,
            evaluation=evaluation,
            study_storage=study_storage,
        )
        first, second = add_model(shared, glintru, "glintru"), add_model(shared, sasrec, "sasrec")
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
