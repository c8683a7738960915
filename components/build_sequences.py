"""KFP component: vocabulary, split and sequences."""

from kfp.dsl import HTML, Dataset, Input, Output

from components.component import component


@component
def build_sequences(
    sequences: str,
    evaluation: str,
    fingerprint: str,
    interactions: Input[Dataset],
    dataset: Output[Dataset],
    data_report: Output[HTML],
):
    """Order each user's events in time, index the items, split, and write the data report.

    Args:
        sequences: `SequencesConfig` as JSON.
        evaluation: `EvaluationConfig` as JSON (for the ceiling of a synthetic log).
        fingerprint: what `resolve_source` said; a part of the cache key.
        interactions: the clean log.
        dataset: sequences and vocabulary in Arrow.
        data_report: counts, distributions, the split and, for a synthetic log, the best possible ranking.
    """
    from components.run_stage import run_stage
    from glintru_model import stages

    manifest = run_stage(
        stages.build_sequences,
        sequences=sequences,
        evaluation=evaluation,
        interactions_dir=interactions.path,
        output_dir=dataset.path,
        report_path=data_report.path,
    )
    dataset.metadata.update({**manifest, "fingerprint": fingerprint})
