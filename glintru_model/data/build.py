"""From clean interactions to sequences: filter to the core, order by time, split, index the items.

Ids are replaced by dense codes once. DuckDB reads, joins and sorts, spilling to disk; the sorted codes then lie in flat
files, which a few passes in blocks of users turn into the file that Arrow maps.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from glintru_model.config import SequencesConfig
from glintru_model.data.coding import BoolArray, CodedLog, Int64Array
from glintru_model.data.engine import leave_room, open_engine
from glintru_model.data.expectations import verdict_on
from glintru_model.data.hashing import hash_batches
from glintru_model.data.histories import Histories
from glintru_model.data.indexing import Catalogue, index_items
from glintru_model.data.interactions import INTERACTIONS_FILE, ITEMS_FILE
from glintru_model.data.kcore import count_events, find_core
from glintru_model.data.sequences import MANIFEST_FILE, SEQUENCES_FILE, load_vocabulary
from glintru_model.data.splitting import describe, find_cuts
from glintru_model.errors import DataError
from glintru_model.files import atomic_directory, read_json, write_json
from glintru_model.layout import DATA_REPORT_FILE, VOCABULARY_FILE
from glintru_model.progress import Progress, say


def build_sequences(interactions_dir: Path, output_dir: Path, config: SequencesConfig) -> dict[str, Any]:
    """Write `sequences.arrow`, `vocabulary.arrow` and `manifest.json`.

    Events are ordered by time within each user, ties in the log's order; users stand by ascending user_id. The
    same input gives the same bytes.

    `leave_one_out`: the last event of each user is the test target, the one before it the validation target; a
    user with fewer than 3 events is all training. Every item of the histories is in the catalogue: one without a
    training event is a candidate (and a target) like any other, as in published results for this split.

    `temporal`: one cut in time for everyone. An item without a training event did not exist yet: it gets no
    index, and its events are left out of validation and test and counted in the manifest.

    `k_core` comes first. Under `temporal` it sees the training events alone; users and items outside the core are then
    left out of every part. `max_history` comes last and takes the oldest training events; targets always stay.

    Args:
        interactions_dir: what `ingest` wrote.
        output_dir: the directory to make (or replace).
        config: the filters and the split.

    Returns:
        The manifest.

    Raises:
        DataError: the interactions cannot be read, or nothing is left, or the split leaves a part empty.
        StorageError: memory and disk ran out; nothing is written.
    """
    source = interactions_dir / INTERACTIONS_FILE
    if not source.is_file():
        raise DataError(f"{source}: no such file, expected the output of ingest")
    with atomic_directory(output_dir, MANIFEST_FILE) as temporary:
        work = temporary / "work"
        work.mkdir()
        with open_engine(work / "spill", str(source), config.memory_gib) as connection:
            log = CodedLog(connection, source)
            leave_room(connection, config.memory_gib, log.held_bytes)
            build = _Build(log, config, work)
        manifest = build.write(temporary, interactions_dir)
        shutil.rmtree(work)
    return manifest


class _Build:
    """What one build knows; made within the engine, written without it."""

    def __init__(self, log: CodedLog, config: SequencesConfig, work: Path) -> None:
        self._log, self._config, self._work = log, config, work
        self._steps = [_step("interactions", len(log.users), len(log.items), log.total)]
        self._cuts = find_cuts(log, config)
        self._split = describe(log, config, self._cuts)
        self._parts = self._count_parts()
        core = self._find_core() if config.k_core > 1 else None
        self._histories = Histories(log.sort(work, core), self._cuts, config.max_history)
        if core is not None:
            total = int(self._histories.lengths.sum())
            self._steps.append(_step(f"k_core {config.k_core}", int(core[0].sum()), int(core[1].sum()), total))

    def write(self, directory: Path, interactions_dir: Path) -> dict[str, Any]:
        log, config, histories = self._log, self._config, self._histories
        report_path = interactions_dir / DATA_REPORT_FILE
        report = dict(read_json(report_path)) if report_path.is_file() else {}
        counts, recent_counts, _ = histories.count_items(len(log.items), log.first, log.last)
        found = histories.look(len(log.items))
        earlier = load_vocabulary(Path(config.keep_indices_of) / VOCABULARY_FILE) if config.keep_indices_of else None
        wanted = counts > 0 if self._cuts else found.present
        catalogue = index_items(log.items, counts, recent_counts, wanted, earlier)
        vocabulary = catalogue.batch(interactions_dir / ITEMS_FILE)
        sequences, ends = self._sequences(catalogue)
        manifest = {
            "num_items": vocabulary.num_rows,
            "num_new_items": catalogue.num_new if earlier else None,
            **self._counts(ends),
            "num_cold_items": self._num_cold_items if config.k_core > 1 else int((found.present & (counts == 0)).sum()),
            "num_repeats": found.num_repeats,
            "num_duplicates": found.num_duplicates,
            **self._split,
            "k_core": config.k_core,
            "max_history": config.max_history,
            "steps": self._steps,
            "expected": self._compare_with_published(report),
            "dataset_hash": hash_batches(sequences, vocabulary),
            "source": report["source"]["description"] if report else "unknown",
        }
        _refuse_empty_parts(manifest)
        _write_batch(directory / SEQUENCES_FILE, sequences)
        _write_batch(directory / VOCABULARY_FILE, vocabulary)
        write_json(directory / MANIFEST_FILE, manifest)
        return manifest

    def _compare_with_published(self, report: dict[str, Any]) -> dict[str, Any] | None:
        """Compare the core with what a source of this dataset names for it; None where none does."""
        published = report.get("expected_cores", {}).get(str(self._config.k_core))
        if published is None or self._cuts is not None:
            return None
        found = {name: self._steps[1][name] for name in published["counts"]}
        expected = verdict_on(published["name"], found, published["counts"], published["source"])
        say(expected["verdict"] if expected["met"] else f"warning: {expected['verdict']}")
        return expected

    def _find_core(self) -> tuple[BoolArray, BoolArray]:
        log, least = self._log, self._config.k_core
        users, items, total = log.write_pairs(self._work, self._cuts.validation if self._cuts else None)
        user_counts = count_events(users, total, len(log.users))
        item_counts = count_events(items, total, len(log.items))
        self._num_cold_items = int((item_counts == 0).sum())
        core = find_core(users, items, total, user_counts, item_counts, least)
        for codes in (users, items):
            codes.path.unlink()
        if not core[0].any():
            raise DataError(
                f"no user is left after 'k_core {least}': before it there were {len(log.users):,} users, "
                f"{len(log.items):,} items and {total:,} {'training events' if self._cuts else 'interactions'}"
            )
        return core

    def _count_parts(self) -> tuple[int, int] | None:
        """Count the whole log's events after each cut, before any filter of the build."""
        if self._cuts is None:
            return None
        until = [self._log.count_until(cut) for cut in (self._cuts.validation, self._cuts.test)]
        return until[1] - until[0], self._log.total - until[1]

    def _sequences(self, catalogue: Catalogue) -> tuple[pa.RecordBatch, tuple[Int64Array, Int64Array, Int64Array]]:
        progress = Progress("write sequences", int(self._histories.lengths.sum()), "interactions")
        values, *of_codes = self._histories.write_indices(
            self._work / "indices.bin", catalogue.index_of_code, progress.update
        )
        present = np.flatnonzero(of_codes[0])
        lengths, train_ends, validation_ends = (values_U[present] for values_U in of_codes)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        batch = pa.record_batch(
            {
                "user_id": self._log.users.take(pa.array(present)),
                "item_ids": pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values)),
                "train_end": pa.array(train_ends),
                "validation_end": pa.array(validation_ends),
            }
        )
        if self._config.max_history:
            name = f"max_history {self._config.max_history}"
            self._steps.append(_step(name, len(lengths), catalogue.num_items, int(offsets[-1])))
        return batch, (lengths, train_ends, validation_ends)

    def _counts(self, ends: tuple[Int64Array, Int64Array, Int64Array]) -> dict[str, int]:
        lengths, train_ends, validation_ends = ends
        num_validation, num_test = int((validation_ends - train_ends).sum()), int((lengths - validation_ends).sum())
        before = self._parts or (num_validation, num_test)
        return {
            "num_users": len(lengths),
            "num_interactions": int(lengths.sum()),
            "num_train": int(train_ends.sum()),
            "num_validation": num_validation,
            "num_test": num_test,
            "num_cold_users": int((train_ends == 0).sum()),
            "num_dropped_users": len(self._log.users) - len(lengths),
            "num_dropped_validation": before[0] - num_validation,
            "num_dropped_test": before[1] - num_test,
        }


def _step(name: str, num_users: int, num_items: int, num_interactions: int) -> dict[str, Any]:
    return {"step": name, "num_users": num_users, "num_items": num_items, "num_interactions": num_interactions}


def _refuse_empty_parts(manifest: dict[str, Any]) -> None:
    for part in ("validation", "test"):
        if manifest[f"num_{part}"] == 0:
            reason = (
                "no user has 3 events or more"
                if manifest["split"] == "leave_one_out"
                else f"cuts at {manifest['validation_cut']} and {manifest['test_cut']}"
            )
            raise DataError(
                f"split {manifest['split']!r}: the {part} part is empty ({reason}; {manifest['num_users']} users, "
                f"{manifest['num_interactions']} interactions)"
            )


def _write_batch(path: Path, batch: pa.RecordBatch) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
