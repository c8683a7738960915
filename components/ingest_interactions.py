"""KFP component: any interaction log in, one clean Parquet log out."""

from kfp.dsl import Dataset, Output

from components.component import component


@component
def ingest_interactions(ingest: str, fingerprint: str, downloads_dir: str, interactions: Output[Dataset]):
    """Read, validate and clean the log.

    Args:
        ingest: `IngestConfig` as JSON.
        fingerprint: what `resolve_source` said; a part of the cache key.
        downloads_dir: where copies of published logs are kept.
        interactions: the clean log and the counts before and after each step.
    """
    from components.run_stage import run_stage
    from glintru_model import stages

    counts = run_stage(
        stages.ingest,
        ingest=ingest,
        downloads_dir=downloads_dir,
        output_dir=interactions.path,
        fingerprint=fingerprint,
    )
    interactions.metadata.update({**counts, "fingerprint": fingerprint})
