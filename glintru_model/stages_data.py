"""The pipeline's steps up to the sequences; see `stages`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from glintru_model.config import EvaluationConfig, IngestConfig, SequencesConfig
from glintru_model.config_io import parse, parse_recommender
from glintru_model.errors import DataError
from glintru_model.files import read_json, write_json
from glintru_model.fingerprint import combine, package_fingerprint
from glintru_model.layout import CEILING_FILE, DATA_REPORT_FILE
from glintru_model.progress import say

if TYPE_CHECKING:
    from glintru_model.data.source import ResolvedSource

_AND_EARLIER = "-"  # in a run's fingerprint: before it the input and the code, after it earlier outputs


def resolve_source(ingest: str, sequences: str, recommenders: list[str], downloads_dir: str) -> str:
    """Fingerprint what the run reads beside its settings: the input, earlier outputs, this package's source.

    Args:
        ingest, sequences: `IngestConfig` and `SequencesConfig` as JSON.
        recommenders: each recommender's config as JSON.
        downloads_dir: where copies of published logs are kept.

    Raises:
        InputError: the source, or an earlier output that the settings name, does not exist.
    """
    from glintru_model.data import ingest as ingest_log
    from glintru_model.earlier import fingerprint_earlier

    source = ingest_log.resolve_source(parse(IngestConfig, ingest, "ingest"), Path(downloads_dir))
    models = [parse_recommender(text, "recommender") for text in recommenders]
    earlier = fingerprint_earlier(parse(SequencesConfig, sequences, "sequences"), *models)
    say(f"source: {source.description}")
    return f"{_of_source(source)}{_AND_EARLIER}{earlier}"


def ingest(ingest: str, downloads_dir: str, output_dir: str, fingerprint: str = "") -> dict[str, Any]:
    """Read, validate and clean the log into `output_dir`; return its counts.

    Args:
        ingest: `IngestConfig` as JSON.
        downloads_dir: where copies of published logs are kept.
        output_dir: the folder to write.
        fingerprint: what `resolve_source` said; a log that has changed since is refused, because the result would be
            kept under the wrong key. Empty, or an address whose content has no version, is not compared.

    Raises:
        InputError: the log, or a setting, cannot be used.
    """
    from glintru_model.data import ingest as ingest_log

    config = parse(IngestConfig, ingest, "ingest")
    source = ingest_log.resolve_source(config, Path(downloads_dir))
    if fingerprint and source.kind != "web" and fingerprint.partition(_AND_EARLIER)[0] != _of_source(source):
        raise DataError(f"{source.description}: changed since the run began; run it again")
    report = ingest_log.ingest(config, Path(output_dir), Path(downloads_dir))
    return dict(report["counts"])


def build_sequences(
    sequences: str, evaluation: str, interactions_dir: str, output_dir: str, report_path: str
) -> dict[str, Any]:
    """Build vocabulary, split and sequences in `output_dir` and write the data report; return the manifest.

    Raises:
        InputError: nothing is left to train or to evaluate on.
    """
    from glintru_model.ceiling import rank_by_truth
    from glintru_model.data.build import build_sequences as build
    from glintru_model.data.report import write_data_report

    source, output = Path(interactions_dir), Path(output_dir)
    manifest = build(source, output, parse(SequencesConfig, sequences, "sequences"))
    ceiling = rank_by_truth(source, output, parse(EvaluationConfig, evaluation, "evaluation"))
    if ceiling:
        write_json(output / CEILING_FILE, ceiling)
        say(f"best possible test ranking of this synthetic log: NDCG@10 {ceiling['ndcg_at_10']:.4f}")
    write_data_report(read_json(source / DATA_REPORT_FILE), Path(report_path), manifest=manifest, ceiling=ceiling)
    return {name: manifest[name] for name in ("num_users", "num_items", "num_interactions", "dataset_hash")}


def _of_source(source: "ResolvedSource") -> str:
    return combine(source.fingerprint, package_fingerprint())
