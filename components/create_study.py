"""KFP component: the Optuna study that a model's tuning workers share."""

from kfp.dsl import Artifact, Input, Output

from components.component import component


@component
def create_study(
    recommender: str, tuning: str, run_name: str, study_storage: str, run: Input[Artifact], study: Output[Artifact]
):
    """Create the study in one step, before any worker starts.

    Args:
        recommender: the recommender's config as JSON; its settings are the first trial.
        tuning: `TuningConfig` as JSON.
        run_name: the pipeline run's name; with the model's name it names the study.
        study_storage: `journal:<path>`; empty means the database in `GLINTRU_STUDY_STORAGE`.
        run: the pipeline run in MLflow.
        study: the study's name and storage (never its credentials).
    """
    from components.run_stage import run_stage
    from glintru_model import stages

    run_stage(
        stages.create_study,
        recommender=recommender,
        tuning=tuning,
        run_name=run_name,
        study_storage=study_storage,
        run_path=run.path,
        study_path=study.path,
    )
