"""From any log to clean interactions and a data report."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from glintru_model.config import IngestConfig
from glintru_model.data.append import append_events
from glintru_model.data.catalog import CatalogEntry
from glintru_model.data.engine import literal, open_engine
from glintru_model.data.expectations import refuse_unexpected, verdict_on
from glintru_model.data.fetch import Fetched, fetch
from glintru_model.data.formats import open_log, open_titles
from glintru_model.data.interactions import (
    INTERACTIONS_FILE,
    ITEMS_FILE,
    Cleaning,
    Step,
    counts_of,
    read_events,
    write_titles,
)
from glintru_model.data.source import ResolvedSource, resolve_source
from glintru_model.data.statistics import count_events, describe_events
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
    fractions, float64; they are numbers, or ISO 8601 text (UTC unless it says otherwise) where no value is a number.
    Numbers of two units (seconds and milliseconds) in one log are refused. A missing id or a time that is no time or
    is negative is refused, not repaired, unless `expectations.max_null_share` lets rows without a value be left out.
    `duplicates` keeps one event of each user and item.

    Order of the filters: min_rating, since and until, duplicates, append_to.

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
    with atomic_directory(output_dir, INTERACTIONS_FILE) as temporary:
        work = temporary / "work"
        work.mkdir()
        with open_engine(work / "spill", source.description, config.memory_gib) as connection:
            if source.kind == "synthetic":
                fetched = _draw(config, work, temporary)
            else:
                fetched = fetch(source, downloads_dir, work)
            report = _clean(connection, config, source, fetched, temporary, work)
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
    connection: Any, config: IngestConfig, source: ResolvedSource, fetched: Fetched, output_dir: Path, work: Path
) -> dict[str, Any]:
    """Write the interactions and the titles; returns the report."""
    entry, path = source.entry, output_dir / INTERACTIONS_FILE
    log = open_log(connection, fetched.files, source.format, source.columns)
    if config.min_rating is not None and not log.has_rating:
        raise DataError(
            f"{fetched.files[0]}: min_rating {config.min_rating:g} needs a column {source.columns.rating!r}, "
            f"found: {', '.join(log.names)}"
        )
    read = read_events(connection, log, config, work)
    cleaning = Cleaning(connection, "read_events")
    cleaning.run(config, entry.min_count if entry else 0)
    cleaning.write(path, read.num_rows)
    appended = append_events(connection, path, Path(config.append_to), work) if config.append_to else None
    connection.read_parquet(literal(path)).create_view("events")
    counts = count_events(connection)
    steps = cleaning.finish(*(appended.counts if appended else counts))
    if appended:
        steps.append(Step(f"appended to {appended.num_before:,} interactions", *counts))
    if entry and entry.titles and fetched.titles:
        form, item_id, title = entry.titles.format, entry.titles.item_id, entry.titles.title
        open_titles(connection, fetched.titles, form, item_id, title)
        write_titles(connection, output_dir / ITEMS_FILE)
    description = describe_events(connection)
    refuse_unexpected(config.expectations, steps[-1], description)
    expected = _expectation(config, entry, steps[-1])
    return {
        "source": _describe_source(source, fetched),
        "settings": _describe_settings(config, source),
        "counts": counts_of(steps[-1]),
        "steps": [asdict(step) for step in steps],
        "num_rows": read.num_rows,
        "num_missing": read.num_missing,
        "appended": appended.summary() if appended else None,
        "expected": expected,
        "expected_cores": _expected_cores(config, entry),
        "warnings": [*read.hints, *([expected["verdict"]] if expected and not expected["met"] else [])],
        **description,
    }


def _describe_source(source: ResolvedSource, fetched: Fetched) -> dict[str, str]:
    return {
        "kind": source.kind,
        "description": source.description,
        "fingerprint": source.fingerprint,
        "checksum": fetched.checksum,
        "licence": source.entry.licence if source.entry else "",
    }


def _describe_settings(config: IngestConfig, source: ResolvedSource) -> dict[str, Any]:
    names = ("time_unit", "min_rating", "since", "until", "duplicates", "append_to")
    return {
        **{name: getattr(config, name) for name in names},
        "expectations": config.expectations.model_dump(),
        "columns": source.columns.model_dump(),
        **({"synthetic": config.synthetic.model_dump()} if source.kind == "synthetic" else {}),
    }


def _is_as_published(config: IngestConfig) -> bool:
    """Tell whether nothing but the publisher's own events is left, so that published counts hold."""
    defaults = IngestConfig()
    names = ("min_rating", "since", "until", "duplicates", "append_to")
    return all(getattr(config, name) == getattr(defaults, name) for name in names)


def _expectation(config: IngestConfig, entry: CatalogEntry | None, found: Step) -> dict[str, Any] | None:
    """Compare with the counts that a source names for this dataset; None where none holds for these settings."""
    counts = entry.expected.get(0) if entry and _is_as_published(config) else None
    if entry is None or counts is None:
        return None
    return verdict_on(entry.name, counts_of(found), asdict(counts), entry.source_of_counts)


def _expected_cores(config: IngestConfig, entry: CatalogEntry | None) -> dict[str, Any]:
    """State what `build_sequences` is to find for each k_core that a source names counts for."""
    if entry is None or not _is_as_published(config):
        return {}
    return {
        str(k): {"name": entry.name, "counts": asdict(counts), "source": entry.source_of_counts}
        for k, counts in entry.expected.items()
        if k > 1
    }
