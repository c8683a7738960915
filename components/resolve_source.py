"""KFP component: what the run's input is right now."""

from components.component import component


@component
def resolve_source(ingest: str, downloads_dir: str) -> str:
    """Fingerprint the input's content and the package's own source; cached steps depend on it.

    Args:
        ingest: `IngestConfig` as JSON.
        downloads_dir: where copies of published logs are kept.

    Returns:
        A hash that changes whenever the input's bytes or the code that reads them change.
    """
    from components.run_stage import run_stage
    from glintru_model import stages

    return run_stage(stages.resolve_source, ingest=ingest, downloads_dir=downloads_dir)
