"""Evaluate a scorer on one split: metrics with intervals, by group of users, beside the baselines."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from glintru_model.config import EvaluationConfig
from glintru_model.data.sequences import EvaluationCases, EvaluationSplit, SequenceDataset
from glintru_model.errors import DataError
from glintru_model.evaluation.baselines import BASELINES
from glintru_model.evaluation.intervals import Estimate, PairedDifference, by_user, estimate, paired_bootstrap
from glintru_model.evaluation.lists import covered_by_user, list_metrics
from glintru_model.evaluation.metrics import MAIN_CUTOFF, FloatArray, Int64Array, metrics_from_ranks
from glintru_model.evaluation.ranking import RankingResult, Scorer, rank_targets
from glintru_model.evaluation.result import Evaluation, Group
from glintru_model.evaluation.sampling import PopularitySampler, sampled_suffix

GROUP_METRICS = (f"ndcg_at_{MAIN_CUTOFF}", f"recall_at_{MAIN_CUTOFF}")
_NUM_GROUPS = 5
_NUM_SAMPLES = 6
_SAMPLE_HISTORY = 8


def mean_metrics(
    scorer: Scorer, dataset: SequenceDataset, split: EvaluationSplit, config: EvaluationConfig
) -> dict[str, float]:
    """Compute the ranking metrics alone: no intervals, no groups, no output.

    Raises:
        DataError: no user has a target in this split.
        TrainingError: a score is not finite.
    """
    cases = _cases(dataset, split, config)
    ranking = rank_targets(scorer, dataset, cases, filter_seen=config.filter_seen, batch_size=config.batch_size)
    return {name: float(values.mean()) for name, values in metrics_from_ranks(ranking.ranks, config.cutoffs).items()}


def validation_metrics(scorer: Scorer, dataset: SequenceDataset, config: EvaluationConfig) -> dict[str, float]:
    """Compute what models are chosen by, quickly enough for the end of every epoch.

    Raises:
        DataError, TrainingError: as `mean_metrics`.
    """
    return mean_metrics(scorer, dataset, "validation", config)


def evaluate_model(
    scorer: Scorer, dataset: SequenceDataset, split: EvaluationSplit, config: EvaluationConfig, what: str = "evaluate"
) -> Evaluation:
    """Evaluate a scorer and, on the same cases, every baseline; compare it with each by paired bootstrap.

    Raises:
        DataError, TrainingError: as `evaluate`.
    """
    result = evaluate(scorer, dataset, split, config, what=what)
    baselines, comparisons = {}, {}
    for name, fit in BASELINES.items():
        baselines[name] = evaluate(fit(dataset), dataset, split, config, what=f"{what}: {name}")
        comparisons[name] = compare_ranks(result.ranks, baselines[name].ranks, result.users, config)
    return replace(result, baselines=baselines, baseline_comparisons=comparisons)


def evaluate(
    scorer: Scorer, dataset: SequenceDataset, split: EvaluationSplit, config: EvaluationConfig, *, what: str = ""
) -> Evaluation:
    """Rank the whole catalogue for every target of a split.

    Beside the ranking metrics stand those of each user's top 10 (see `lists`). Metrics among sampled candidates end in
    `_pop100` (or as many as the config draws).

    Args:
        scorer: scores the catalogue after a history.
        dataset: histories and catalogue.
        split: whose targets to rank.
        config: cutoffs, filter, bootstrap.
        what: shows progress under this name; silent if empty.

    Raises:
        DataError: no user has a target in this split.
        TrainingError: a score is not finite.
    """
    cases = _cases(dataset, split, config)
    ranking = rank_targets(
        scorer,
        dataset,
        cases,
        filter_seen=config.filter_seen,
        batch_size=config.batch_size,
        top_k=MAIN_CUTOFF,
        what=what,
        sampler=_sampler(dataset, config),
    )
    by_rank = metrics_from_ranks(ranking.ranks, config.cutoffs)
    table = _case_table(dataset, cases, ranking)
    return Evaluation(
        split=split,
        config=config,
        num_items=dataset.num_items,
        num_removed_targets=ranking.num_removed_targets,
        cases=table,
        metrics={
            **_estimates(by_rank, cases.user_rows, config),
            **_list_estimates(dataset, cases, ranking, config),
            **_estimates(_sampled_metrics(ranking, config), cases.user_rows, config),
        },
        hits={f"hits_at_{k}": int((ranking.ranks <= k).sum()) for k in config.cutoffs},
        groups=_groups(table, cases.user_rows, by_rank, config),
        samples=_samples(dataset, cases, ranking, config.seed),
        seconds=ranking.seconds,
    )


def compare_ranks(
    first: Int64Array, second: Int64Array, users: Int64Array, config: EvaluationConfig
) -> dict[str, PairedDifference]:
    """Compare two scorers' ranks of the same targets, metric by metric: first minus second.

    Args:
        first, second: ranks, (C,).
        users: a number for the user of each target, (C,); users are resampled whole.
        config: cutoffs and bootstrap.

    Raises:
        DataError: the lengths differ.
    """
    if len(first) != len(second):
        raise DataError(f"{len(first)} and {len(second)} ranks cannot be paired, the targets must be the same")
    ours, theirs = (metrics_from_ranks(ranks, config.cutoffs) for ranks in (first, second))
    samples, seed = config.bootstrap_samples, config.seed
    return {
        name: paired_bootstrap(by_user(values, users), by_user(theirs[name], users), samples, seed)
        for name, values in ours.items()
    }


def group_rows(cases: pa.Table) -> dict[str, list[tuple[str, Int64Array]]]:
    """Group an evaluation's cases by history length and by the target's training events; see `quantile_groups`."""
    columns = {"history_length": "history_length", "item_popularity": "target_train_count"}
    return {name: quantile_groups(cases.column(column).to_numpy(), _NUM_GROUPS) for name, column in columns.items()}


def quantile_groups(values: Int64Array, num_groups: int) -> list[tuple[str, Int64Array]]:
    """Part cases into groups of about equal size by a whole number that each of them has.

    Equal numbers stay together, so there may be fewer groups.

    Returns:
        A label (the number itself, or the smallest and largest one) and the row numbers of each group, ascending.
    """
    shares = np.arange(1, num_groups) / num_groups
    edges = np.unique(np.quantile(values, shares, method="inverted_cdf"))
    group_of = np.searchsorted(edges, values, side="left")
    groups = []
    for index in np.unique(group_of):
        rows = np.flatnonzero(group_of == index)
        low, high = int(values[rows].min()), int(values[rows].max())
        groups.append((f"{low:,}" if low == high else f"{low:,}\N{EN DASH}{high:,}", rows))
    return groups


def _cases(dataset: SequenceDataset, split: EvaluationSplit, config: EvaluationConfig) -> EvaluationCases:
    cases = dataset.cases(split, config.targets)
    if not len(cases):
        raise DataError(f"no user has a {split} target with a history before it, at least 1 is needed")
    return cases


def _case_table(dataset: SequenceDataset, cases: EvaluationCases, ranking: RankingResult) -> pa.Table:
    vocabulary = dataset.vocabulary
    rows = pa.array(cases.targets.astype(np.int64) - 1)
    return pa.table(
        {
            "user_id": dataset.user_ids.take(pa.array(cases.user_rows)),
            "target_item_id": vocabulary.item_ids.take(rows),
            "rank": ranking.ranks,
            "history_length": cases.history_ends - cases.history_starts,
            "target_train_count": vocabulary.train_counts[cases.targets - 1],
        }
    )


def _list_estimates(
    dataset: SequenceDataset, cases: EvaluationCases, ranking: RankingResult, config: EvaluationConfig
) -> dict[str, Estimate]:
    covered = covered_by_user(ranking.recommended, cases.user_rows, dataset.num_items)
    coverage = estimate(covered, config.bootstrap_samples, config.seed)
    return {
        f"coverage_at_{MAIN_CUTOFF}": replace(coverage, low=max(coverage.low, 0.0), high=min(coverage.high, 1.0)),
        **_estimates(list_metrics(ranking.recommended, cases.targets, dataset), cases.user_rows, config),
    }


def _sampler(dataset: SequenceDataset, config: EvaluationConfig) -> PopularitySampler | None:
    if not config.sampled_negatives:
        return None
    events_V = np.bincount(dataset.item_ids, minlength=dataset.num_items + 1)[1:].astype(np.int64)
    return PopularitySampler(events_V, config.sampled_negatives, config.seed)


def _sampled_metrics(ranking: RankingResult, config: EvaluationConfig) -> dict[str, FloatArray]:
    if ranking.sampled_ranks is None:
        return {}
    suffix = sampled_suffix(config.sampled_negatives)
    by_rank = metrics_from_ranks(ranking.sampled_ranks, config.cutoffs)
    return {f"{name}{suffix}": values for name, values in by_rank.items()}


def _estimates(values: dict[str, FloatArray], users: Int64Array, config: EvaluationConfig) -> dict[str, Estimate]:
    samples, seed = config.bootstrap_samples, config.seed
    return {name: estimate(by_user(column, users), samples, seed) for name, column in values.items()}


def _groups(
    table: pa.Table, users: Int64Array, by_rank: dict[str, FloatArray], config: EvaluationConfig
) -> dict[str, list[Group]]:
    def of_rows(rows: Int64Array) -> dict[str, Estimate]:
        return _estimates({metric: by_rank[metric][rows] for metric in GROUP_METRICS}, users[rows], config)

    return {
        name: [Group(label, rows, of_rows(rows)) for label, rows in parts] for name, parts in group_rows(table).items()
    }


def _samples(
    dataset: SequenceDataset, cases: EvaluationCases, ranking: RankingResult, seed: int
) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(cases), size=min(_NUM_SAMPLES, len(cases)), replace=False))
    name_of = _item_names(dataset)
    samples = []
    for row in chosen:
        begin = max(cases.history_starts[row], cases.history_ends[row] - _SAMPLE_HISTORY)
        history = dataset.item_ids[begin : cases.history_ends[row]]
        samples.append(
            {
                "user": str(dataset.user_ids[int(cases.user_rows[row])].as_py()),
                "history": [name_of(item) for item in history],
                "target": name_of(cases.targets[row]),
                "rank": int(ranking.ranks[row]),
                "recommended": [name_of(item) for item in ranking.recommended[row] if item],
            }
        )
    return samples


def _item_names(dataset: SequenceDataset) -> Callable[[Any], str]:
    vocabulary = dataset.vocabulary

    def name_of(item: Any) -> str:
        title = vocabulary.titles[int(item) - 1].as_py() if vocabulary.titles is not None else None
        return str(title or vocabulary.item_ids[int(item) - 1].as_py())

    return name_of
