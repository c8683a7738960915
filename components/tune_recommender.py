"""KFP component: one tuning worker."""

from kfp.dsl import Artifact, Dataset, Input, Output

from components.component import component


@component
def tune_recommender(
    recommender: str,
    tuning: str,
    evaluation: str,
    worker: int,
    study: Input[Artifact],
    dataset: Input[Dataset],
    run: Input[Artifact],
    trials: Output[Artifact],
):
    """Run trials until the study's budget, shared by all its workers, is spent.

    Args:
        recommender: the recommender's config as JSON.
        tuning: `TuningConfig` as JSON.
        evaluation: `EvaluationConfig` as JSON.
        worker: this worker's number; it seeds the sampler.
        study: the study to work for.
        dataset: sequences and vocabulary.
        run: the pipeline run in MLflow.
        trials: how many trials this worker ran.
    """
    from components.run_stage import run_stage
    from glintru_model import stages

    run_stage(
        stages.tune,
        recommender=recommender,
        tuning=tuning,
        evaluation=evaluation,
        worker=worker,
        study_path=study.path,
        dataset_dir=dataset.path,
        run_path=run.path,
        trials_path=trials.path,
    )
