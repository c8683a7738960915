"""KFP component: the MLflow run above everything else of this pipeline run."""

from kfp.dsl import Artifact, Output

from components.component import component


@component
def start_run(
    run_name: str,
    experiment: str,
    tracking_uri: str,
    artifact_location: str,
    git_commit: str,
    settings: str,
    run: Output[Artifact],
):
    """Open (or, on a retry, find again) the parent run in MLflow.

    Args:
        run_name: the pipeline run's name, unique per run.
        experiment: the MLflow experiment's name.
        tracking_uri: MLflow's address without credentials; empty means `MLFLOW_TRACKING_URI`.
        artifact_location: where a new experiment keeps its artifacts; empty leaves it to the server.
        git_commit: the commit the pipeline was started from.
        settings: the whole configuration as JSON, kept with the run.
        run: a reference to the run, for the later steps.
    """
    from components.run_stage import run_stage
    from glintru_model import stages

    run_stage(
        stages.start_run,
        run_name=run_name,
        experiment=experiment,
        tracking_uri=tracking_uri,
        artifact_location=artifact_location,
        git_commit=git_commit,
        settings=settings,
        run_path=run.path,
    )
