"""KFP component: the best configuration that the study found."""

from kfp.dsl import HTML, Artifact, Input, Output

from components.component import component


@component
def select_hyperparameters(
    recommender: str,
    study: Input[Artifact],
    trials: Input[list[Artifact]],
    run: Input[Artifact],
    best: Output[Artifact],
    study_report: Output[HTML],
):
    """Read the finished study.

    Args:
        recommender: the recommender's config as JSON; the best trial's values are laid over it.
        study: the study.
        trials: what the workers left; their presence means that all have ended.
        run: the pipeline run in MLflow.
        best: the best recommender's config, with a table of all trials.
        study_report: plots of the study.
    """
    from components.run_stage import run_stage
    from glintru_model import stages

    run_stage(
        stages.select_hyperparameters,
        recommender=recommender,
        study_path=study.path,
        trials_paths=[worker.path for worker in trials],
        run_path=run.path,
        best_path=best.path,
        report_path=study_report.path,
    )
