"""What an evaluation found, and its files: `metrics.json` and `per_user.parquet`."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from glintru_model.config import EvaluationConfig
from glintru_model.data.sequences import EvaluationSplit
from glintru_model.errors import DataError
from glintru_model.evaluation.intervals import CONFIDENCE, Estimate, PairedDifference
from glintru_model.evaluation.metrics import Int64Array
from glintru_model.evaluation.ranking import TIE_RULE
from glintru_model.files import atomic_file, read_json, write_json

METRICS_FILE = "metrics.json"
PER_USER_FILE = "per_user.parquet"
_COLUMNS = ("user_id", "target_item_id", "rank", "history_length", "target_train_count")


@dataclass(frozen=True, eq=False)
class Group:
    """Some of the cases, under a label such as `7` or `5 to 12`; `rows` are their row numbers."""

    label: str
    rows: Int64Array
    metrics: dict[str, Estimate]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One scorer on one split, by full ranking.

    Attributes:
        split: `validation` or `test`.
        config: cutoffs, filter and bootstrap that it was made with.
        num_items: size of the catalogue.
        num_removed_targets: targets that this filter removed; each counts as a miss.
        cases: one row per target: user_id, target_item_id, rank, history_length, target_train_count.
        metrics: mean over targets with its interval over users; among them `coverage_at_10`, the share of the
            catalogue that is in anyone's top 10.
        hits: number of targets within each cutoff.
        groups: `history_length` and `item_popularity` (training events of the target), each in ascending order.
        samples: histories, targets and recommendations of a few users, the same for every scorer.
        seconds: time that scoring and ranking took.
        baselines: the same questions put to each baseline.
        baseline_comparisons: for each baseline and metric, this scorer minus the baseline on the same users.
    """

    split: EvaluationSplit
    config: EvaluationConfig
    num_items: int
    num_removed_targets: int
    cases: pa.Table
    metrics: dict[str, Estimate]
    hits: dict[str, int]
    groups: dict[str, list[Group]]
    samples: list[dict[str, Any]]
    seconds: float
    baselines: dict[str, "Evaluation"] = field(default_factory=dict)
    baseline_comparisons: dict[str, dict[str, PairedDifference]] = field(default_factory=dict)

    @property
    def ranks(self) -> Int64Array:
        """1-based rank of each target, (C,)."""
        return np.asarray(self.cases.column("rank").to_numpy())

    @property
    def users(self) -> Int64Array:
        """A number for the user of each target, (C,)."""
        return user_numbers(self.cases)

    def document(self) -> dict[str, Any]:
        """Return everything but the single cases, as `metrics.json` holds it."""
        return {
            "split": self.split,
            "num_cases": len(self.cases),
            "num_users": len(pc.unique(self.cases.column("user_id"))),
            "num_items": self.num_items,
            "filter_seen": self.config.filter_seen,
            "num_removed_targets": self.num_removed_targets,
            "tie_rule": TIE_RULE,
            "confidence": CONFIDENCE,
            "config": self.config.model_dump(mode="json"),
            "seconds": self.seconds,
            "metrics": _plain(self.metrics),
            "hits": self.hits,
            "groups": {name: self._group_rows(name) for name in self.groups},
            "samples": self.samples,
            "baselines": {name: _plain(baseline.metrics) for name, baseline in self.baselines.items()},
            "baseline_comparisons": {name: _plain(pairs) for name, pairs in self.baseline_comparisons.items()},
        }

    def write(self, directory: Path) -> None:
        """Write the evaluation's files.

        Raises:
            StorageError: the disk refused.
        """
        with atomic_file(directory / PER_USER_FILE) as temporary:
            pq.write_table(self.cases, temporary)
        write_json(directory / METRICS_FILE, self.document())

    def _group_rows(self, name: str) -> list[dict[str, Any]]:
        rows = []
        for index, group in enumerate(self.groups[name]):
            baselines = {key: _plain(other.groups[name][index].metrics) for key, other in self.baselines.items()}
            shown = {"label": group.label, "num_cases": len(group.rows), "metrics": _plain(group.metrics)}
            rows.append({**shown, "baselines": baselines})
        return rows


def user_numbers(cases: pa.Table) -> Int64Array:
    """Number the users of an evaluation's cases, (C,)."""
    numbered = cases.column("user_id").combine_chunks().dictionary_encode()
    return np.asarray(numbered.indices.to_numpy(), dtype=np.int64)


def read_metrics(directory: Path) -> dict[str, Any]:
    """Read an evaluation's `metrics.json`.

    Raises:
        DataError: it is missing or is not an evaluation.
    """
    document = read_json(directory / METRICS_FILE)
    if not isinstance(document, dict) or not {"split", "config", "metrics", "baselines"} <= document.keys():
        raise DataError(f"{directory / METRICS_FILE}: not the metrics of an evaluation")
    return document


def read_cases(directory: Path) -> pa.Table:
    """Read an evaluation's `per_user.parquet`: the columns of `Evaluation.cases`.

    Raises:
        DataError: it is missing or is not an evaluation.
    """
    path = directory / PER_USER_FILE
    try:
        return pq.read_table(path, columns=list(_COLUMNS))
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error}") from error
    except (pa.ArrowException, KeyError) as error:
        raise DataError(f"{path}: not the cases of an evaluation: {error}") from error


def _plain(values: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {name: asdict(value) for name, value in values.items()}
