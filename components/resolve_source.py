"""KFP component: what the run's input is right now."""

from components.component import component


@component
def resolve_source(ingest: str, sequences: str, glintru: str, sasrec: str, downloads_dir: str) -> str:
    """Fingerprint the input, the earlier outputs that settings name, and the code; cached steps depend on it.

    Args:
        ingest: `IngestConfig` as JSON.
        sequences: `SequencesConfig` as JSON.
        glintru: GLINT-RU's config as JSON.
        sasrec: SASRec's config as JSON.
        downloads_dir: where copies of published logs are kept.

    Returns:
        What changes whenever the input's bytes, those of an earlier output, or the code that reads them change.
    """
    from components.run_stage import run_stage
    from glintru_model import stages

    return run_stage(
        stages.resolve_source,
        ingest=ingest,
        sequences=sequences,
        recommenders=[glintru, sasrec],
        downloads_dir=downloads_dir,
    )
