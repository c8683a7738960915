"""Rank each case's target among the whole catalogue.

Shapes: B cases of a batch, C cases in all, V items, K recommended items.
"""

import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from glintru_model.data.sequences import EvaluationCases, SequenceDataset
from glintru_model.errors import TrainingError
from glintru_model.evaluation.metrics import MISS
from glintru_model.evaluation.sampling import PopularitySampler, sampled_ranks
from glintru_model.models.best import best_first
from glintru_model.progress import Progress

TIE_RULE = "every other candidate with the target's score is ranked above the target"
SCORES_AT_ONCE = 1 << 26  # of a batch; a few copies of them are held

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


class Scorer(Protocol):
    """Whatever can score every item as the next one: a trained model, a baseline, the generator of a synthetic log."""

    def score_histories(self, item_ids: Int32Array, starts: Int64Array, ends: Int64Array) -> Tensor:
        """Score the catalogue after each history `item_ids[start:end]`.

        Args:
            item_ids: item indices 1..V of many histories, flat, (N,).
            starts, ends: each history's range in it, (B,); none is empty.

        Returns:
            Finite scores, (B, V + 1), on the scorer's device; column 0 (padding) is not read.
        """
        ...


@dataclass(frozen=True, eq=False)
class RankingResult:
    """Where the targets stand.

    Attributes:
        ranks: 1-based, in the order of the cases, (C,); `MISS` for a target that the filter removed.
        num_removed_targets: targets that the filter removed; each counts as a miss.
        recommended: the best items of each case in order, (C, K); 0 where no candidate is left.
        seconds: time taken.
        sampled_ranks: ranks among sampled negatives, (C,), where a sampler was given; nothing is filtered there.
    """

    ranks: Int64Array
    num_removed_targets: int
    recommended: Int32Array
    seconds: float
    sampled_ranks: Int64Array | None = None


def rank_targets(
    scorer: Scorer,
    dataset: SequenceDataset,
    cases: EvaluationCases,
    *,
    filter_seen: bool,
    batch_size: int,
    top_k: int = 0,
    what: str = "",
    sampler: PopularitySampler | None = None,
) -> RankingResult:
    """Rank every case's target by full ranking; ties go against the target (`TIE_RULE`).

    Args:
        scorer: scores the catalogue.
        dataset: holds the histories.
        cases: the questions.
        filter_seen: take the items of the case's history out of the candidates.
        batch_size: cases scored at once; fewer where the catalogue is so large that their scores would fill memory.
        top_k: how many items to recommend for each case.
        what: shows progress under this name; silent if empty.
        sampler: ranks each target among its draws as well.

    Raises:
        TrainingError: a score is NaN or infinite, or the scores' shape is wrong.
    """
    started = time.perf_counter()
    ranks = np.empty(len(cases), dtype=np.int64)
    recommended = np.zeros((len(cases), top_k), dtype=np.int32)
    among_sampled = None if sampler is None else np.empty(len(cases), dtype=np.int64)
    # Longest first: a batch of like lengths is padded least, and memory that does not suffice shows at once.
    order = np.argsort(cases.history_starts - cases.history_ends, kind="stable")
    batch_size = max(1, min(batch_size, SCORES_AT_ONCE // (dataset.num_items + 1)))
    progress = Progress(what, len(cases), "users") if what else None
    for start in range(0, len(cases), batch_size):
        rows = order[start : start + batch_size]
        batch = cases.select(rows)
        with torch.inference_mode():
            scores_BV1 = _scores(scorer, dataset, batch)
            if sampler is not None and among_sampled is not None:
                negatives = sampler.draw(rows, batch.targets)
                among_sampled[rows] = sampled_ranks(scores_BV1, batch.targets, negatives).cpu().numpy()
            scores_BV1 = _candidate_scores(scores_BV1, dataset, batch, filter_seen)
            ranks[rows] = _ranks(scores_BV1, batch.targets).cpu().numpy()
            if top_k:
                items_BK, _ = best_first(scores_BV1, min(top_k, dataset.num_items))
                recommended[rows, : items_BK.shape[1]] = items_BK.cpu().numpy()
        if progress and start + len(rows) < len(cases):
            progress.update(start + len(rows))
    num_removed = int((ranks == MISS).sum())
    return RankingResult(ranks, num_removed, recommended, time.perf_counter() - started, among_sampled)


def _scores(scorer: Scorer, dataset: SequenceDataset, batch: EvaluationCases) -> Tensor:
    """Score a batch and refuse what cannot be ranked."""
    scores_BV1 = scorer.score_histories(dataset.item_ids, batch.history_starts, batch.history_ends)
    expected = (len(batch), dataset.num_items + 1)
    if tuple(scores_BV1.shape) != expected:
        raise TrainingError(f"{type(scorer).__name__} gave scores of shape {tuple(scores_BV1.shape)}, not {expected}")
    extremes = torch.stack(torch.aminmax(scores_BV1[:, 1:]))  # NaN comes through; a third of isfinite's time
    if not bool(torch.isfinite(extremes).all()):
        raise TrainingError(f"{type(scorer).__name__} gave a score that is not a finite number, it cannot be ranked")
    return scores_BV1


def _candidate_scores(
    scores_BV1: Tensor, dataset: SequenceDataset, batch: EvaluationCases, filter_seen: bool
) -> Tensor:
    """Put minus infinity to whatever is not a candidate: padding and, if asked, seen items."""
    rows, columns = np.arange(len(batch)), np.zeros(len(batch), dtype=np.int64)
    if filter_seen:
        seen_rows, seen_items = _seen(dataset.item_ids, batch)
        rows, columns = np.concatenate([rows, seen_rows]), np.concatenate([columns, seen_items])
    device = scores_BV1.device
    removed = scores_BV1.new_tensor(-torch.inf)
    return scores_BV1.index_put((torch.from_numpy(rows).to(device), torch.from_numpy(columns).to(device)), removed)


def _seen(item_ids: Int32Array, batch: EvaluationCases) -> tuple[Int64Array, Int64Array]:
    """List the (row, item) pairs of all histories of a batch."""
    lengths = batch.history_ends - batch.history_starts
    rows = np.repeat(np.arange(len(batch)), lengths)
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return rows, item_ids[within + batch.history_starts[rows]].astype(np.int64)


def _ranks(scores_BV1: Tensor, targets: Int32Array) -> Tensor:
    targets_B1 = torch.from_numpy(targets.astype(np.int64)).to(scores_BV1.device)[:, None]
    target_scores_B1 = scores_BV1.gather(1, targets_B1)
    # The target itself makes it 1-based; a sum in int64 would take more than twice the time.
    ranks_B = (scores_BV1 >= target_scores_B1).sum(dim=1, dtype=torch.int32)
    return torch.where(torch.isneginf(target_scores_B1[:, 0]), MISS, ranks_B)
