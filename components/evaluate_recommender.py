"""KFP component: full ranking on the test targets."""

from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output

from components.component import component


@component
def evaluate_recommender(
    evaluation: str,
    model: Input[Model],
    dataset: Input[Dataset],
    run: Input[Artifact],
    evaluated: Output[Artifact],
    metrics: Output[Metrics],
    report: Output[HTML],
):
    """Rank the whole catalogue for every test target, beside the baselines.

    Args:
        evaluation: `EvaluationConfig` as JSON.
        model: the trained recommender.
        dataset: sequences and vocabulary.
        run: the pipeline run in MLflow.
        evaluated: metrics with intervals and the rank of every target.
        metrics: the main figures, for the KFP UI.
        report: the model's report.
    """
    from components.run_stage import run_stage
    from glintru_model import stages

    figures = run_stage(
        stages.evaluate,
        evaluation=evaluation,
        model_dir=model.path,
        dataset_dir=dataset.path,
        run_path=run.path,
        output_dir=evaluated.path,
        report_path=report.path,
    )
    for name, value in figures.items():
        metrics.log_metric(name, value)
