"""KFP component: the best configuration, trained in full."""

from kfp.dsl import Artifact, Dataset, Input, Model, Output

from components.component import component


@component
def train_recommender(
    evaluation: str,
    best: Input[Artifact],
    dataset: Input[Dataset],
    run: Input[Artifact],
    model: Output[Model],
):
    """Train with early stopping on validation NDCG@10.

    Args:
        evaluation: `EvaluationConfig` as JSON.
        best: the recommender's config that tuning chose.
        dataset: sequences and vocabulary.
        run: the pipeline run in MLflow.
        model: weights, config, vocabulary and learning curves.
    """
    from components.run_stage import run_stage
    from glintru_model import stages

    metrics = run_stage(
        stages.train,
        evaluation=evaluation,
        best_path=best.path,
        dataset_dir=dataset.path,
        run_path=run.path,
        model_dir=model.path,
    )
    model.metadata.update(metrics)
