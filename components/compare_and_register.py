"""KFP component: both models side by side, and a registered version of each."""

from kfp.dsl import HTML, Artifact, Dataset, Input, Model, Output

from components.component import component


@component
def compare_and_register(
    registry: str,
    interactions: Input[Dataset],
    dataset: Input[Dataset],
    run: Input[Artifact],
    glintru_best: Input[Artifact],
    glintru_trained: Input[Model],
    glintru_evaluated: Input[Artifact],
    sasrec_best: Input[Artifact],
    sasrec_trained: Input[Model],
    sasrec_evaluated: Input[Artifact],
    summary: Output[Artifact],
    report: Output[HTML],
):
    """Compare on the same users, register each model once, and write the run's report.

    Args:
        registry: `RegistryConfig` as JSON.
        interactions: the clean log (its counts stand in the report).
        dataset: sequences and vocabulary.
        run: the pipeline run in MLflow; it is closed here.
        glintru_best: GLINT-RU's tuning result.
        glintru_trained: GLINT-RU, trained.
        glintru_evaluated: GLINT-RU's evaluation.
        sasrec_best: SASRec's tuning result.
        sasrec_trained: SASRec, trained.
        sasrec_evaluated: SASRec's evaluation.
        summary: metrics, versions and aliases as JSON.
        report: one self-contained page over the whole run.
    """
    from components.run_stage import run_stage
    from glintru_model import stages

    run_stage(
        stages.compare_and_register,
        registry=registry,
        interactions_dir=interactions.path,
        dataset_dir=dataset.path,
        run_path=run.path,
        models={
            "glintru": (glintru_best.path, glintru_trained.path, glintru_evaluated.path),
            "sasrec": (sasrec_best.path, sasrec_trained.path, sasrec_evaluated.path),
        },
        summary_path=summary.path,
        report_path=report.path,
    )
