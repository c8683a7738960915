"""From any log to clean interactions and a data report."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from glintru_model.config import IngestConfig
from glintru_model.data.catalog import CatalogEntry
from glintru_model.data.engine import open_engine
from glintru_model.data.fetch import Fetched, fetch
from glintru_model.data.formats import open_log, open_titles
from glintru_model.data.interactions import (
    INTERACTIONS_FILE,
    ITEMS_FILE,
    Step,
    clean_events,
    counts_of,
    read_events,
    write_events,
    write_titles,
)
from glintru_model.data.source import ResolvedSource, resolve_source
from glintru_model.data.statistics import describe_events
from glintru_model.data.synthetic import generate_log
from glintru_model.errors import DataError
from glintru_model.files import atomic_directory, write_json
from glintru_model.layout import DATA_REPORT_FILE, ORACLE_FILE
from glintru_model.progress import say

__all__ = ["ResolvedSource", "ingest", "resolve_source"]


def ingest(config: IngestConfig, output_dir: Path, downloads_dir: Path) -> dict[str, Any]:
    """Read, check and clean a log.

    Writes `interactions.parquet` (user_id, item_id, timestamp and, where the log has it, rating; rows in the log's
    order), `data_report.json`, `items.parquet` (item_id, title) where the publisher's archive has titles, and
    `oracle.npz` for the synthetic log.

    Rules: ids become int64 where all are whole numbers, else strings. Timestamps stay exact, int64 or, with
    fractions, float64. A missing id, a time that is no number or is negative is refused, not repaired. A duplicate is
    an event of the same user and item as another one.

    Args:
        config: the source and the filters.
        output_dir: the directory to make (or replace).
        downloads_dir: where downloads are kept.

    Returns:
        The data report; its `counts` are of what was written.

    Raises:
        InputError: the source or the log cannot be used; nothing is written.
        StorageError: a store, a server or the disk fails; nothing is written.
    """
    source = resolve_source(config, downloads_dir)
    with atomic_directory(output_dir) as temporary:
        work = temporary / "work"
        work.mkdir()
        with open_engine(work / "spill", source.description) as connection:
            if source.kind == "synthetic":
                fetched = _draw(config, work, temporary)
            else:
                fetched = fetch(source, downloads_dir, work)
            report = _clean(connection, config, source, fetched, temporary)
        shutil.rmtree(work)
        write_json(temporary / DATA_REPORT_FILE, report)
    for warning in report["warnings"]:
        say(f"warning: {warning}")
    return report


def _draw(config: IngestConfig, work: Path, output_dir: Path) -> Fetched:
    import pyarrow.parquet as pq

    log, oracle = generate_log(config.synthetic)
    pq.write_table(log, work / "synthetic.parquet")
    oracle.save(output_dir / ORACLE_FILE)
    return Fetched((work / "synthetic.parquet",))


def _clean(
    connection: Any, config: IngestConfig, source: ResolvedSource, fetched: Fetched, output_dir: Path
) -> dict[str, Any]:
    """Write the interactions and the titles; returns the report."""
    entry = source.entry
    log = open_log(connection, fetched.files, source.format, source.columns)
    if config.min_rating is not None and not log.has_rating:
        raise DataError(
            f"{fetched.files[0]}: min_rating {config.min_rating:g} needs a column {source.columns.rating!r}, "
            f"found: {', '.join(log.names)}"
        )
    read_events(connection, log)
    steps = clean_events(connection, config, entry.min_count if entry else 0)
    write_events(connection, output_dir / INTERACTIONS_FILE)
    if entry and entry.titles and fetched.titles:
        form, item_id, title = entry.titles.format, entry.titles.item_id, entry.titles.title
        open_titles(connection, fetched.titles, form, item_id, title)
        write_titles(connection, output_dir / ITEMS_FILE)
    expected = _expectation(config, entry, steps[-1])
    return {
        "source": {
            "kind": source.kind,
            "description": source.description,
            "fingerprint": source.fingerprint,
            "checksum": fetched.checksum,
            "licence": entry.licence if entry else "",
        },
        "settings": {
            "min_rating": config.min_rating,
            "duplicates": config.duplicates,
            "k_core": config.k_core,
            "columns": source.columns.model_dump(),
            **({"synthetic": config.synthetic.model_dump()} if source.kind == "synthetic" else {}),
        },
        "counts": counts_of(steps[-1]),
        "steps": [asdict(step) for step in steps],
        "expected": expected,
        "warnings": [expected["verdict"]] if expected and not expected["met"] else [],
        **describe_events(connection),
    }


def _expectation(config: IngestConfig, entry: CatalogEntry | None, found: Step) -> dict[str, Any] | None:
    """Compare with the counts that a source names for this dataset; None where none holds for these settings."""
    counts = entry.expected.get(config.k_core if config.k_core > 1 else 0) if entry else None
    if entry is None or counts is None or config.min_rating is not None or config.duplicates != "keep":
        return None
    expected = asdict(counts)
    met = counts_of(found) == expected
    verdict = (
        f"{entry.name} yields {_in_words(counts_of(found))}, "
        f"{'as expected' if met else f'expected were {_in_words(expected)}'} ({entry.source_of_counts})"
    )
    return {**expected, "met": met, "verdict": verdict}


def _in_words(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name.removeprefix('num_')}" for name, count in counts.items())
