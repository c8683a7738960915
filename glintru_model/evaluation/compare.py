"""Two evaluations on the same users, compared by paired bootstrap."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from glintru_model.config import EvaluationConfig
from glintru_model.config_io import parse
from glintru_model.errors import DataError
from glintru_model.evaluation.evaluate import compare_ranks, group_rows
from glintru_model.evaluation.metrics import MAIN_CUTOFF, MAIN_METRIC
from glintru_model.evaluation.result import METRICS_FILE, read_cases, read_metrics, user_numbers


def compare(evaluations: Mapping[str, Path]) -> dict[str, Any]:
    """Compare two models, first minus second.

    Args:
        evaluations: two names, each with the folder that `Evaluation.write` filled.

    Returns:
        `first` and `second` (the names), `split`, `num_cases`, `num_users`; `metrics`: difference, low, high and
        p_value by metric; `groups`: the same for NDCG@10 by history length and by item popularity; `hits_at_10`: how
        many targets both models, one of them or neither put into the top 10.

    Raises:
        DataError: a file is missing, or the two were not asked the same questions in the same way.
    """
    (first, first_dir), (second, second_dir) = evaluations.items()
    ours, theirs = read_metrics(first_dir), read_metrics(second_dir)
    for key in ("split", "config"):
        if ours[key] != theirs[key]:
            raise DataError(f"{second_dir / METRICS_FILE}: {key} is {theirs[key]}, that of {first} is {ours[key]}")
    config = parse(EvaluationConfig, ours["config"], str(first_dir / METRICS_FILE))
    cases, other_cases = read_cases(first_dir), read_cases(second_dir)
    _require_same_questions(cases, other_cases, first, second)
    ranks, other_ranks = cases.column("rank").to_numpy(), other_cases.column("rank").to_numpy()
    users = user_numbers(cases)
    hits, other_hits = ranks <= MAIN_CUTOFF, other_ranks <= MAIN_CUTOFF
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, parts in group_rows(cases).items():
        groups[name] = []
        for label, rows in parts:
            pair = compare_ranks(ranks[rows], other_ranks[rows], users[rows], config)[MAIN_METRIC]
            groups[name].append({"label": label, "num_cases": len(rows), **asdict(pair)})
    return {
        "first": first,
        "second": second,
        "split": ours["split"],
        "num_cases": len(cases),
        "num_users": int(users.max()) + 1,
        "metrics": {name: asdict(pair) for name, pair in compare_ranks(ranks, other_ranks, users, config).items()},
        "groups": groups,
        f"hits_at_{MAIN_CUTOFF}": {
            "both": int((hits & other_hits).sum()),
            "first_only": int((hits & ~other_hits).sum()),
            "second_only": int((~hits & other_hits).sum()),
            "neither": int((~hits & ~other_hits).sum()),
        },
    }


def _require_same_questions(cases: pa.Table, other_cases: pa.Table, first: str, second: str) -> None:
    questions = ["user_id", "target_item_id"]
    if not cases.select(questions).equals(other_cases.select(questions)):
        raise DataError(
            f"{first} ({len(cases)} targets) and {second} ({len(other_cases)}) were evaluated on different users or "
            "targets, a paired comparison needs the same ones"
        )
