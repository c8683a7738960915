"""Our metrics against ranx (an independent implementation), on random and on tied scores."""

import numpy as np
import pytest

from glintru_model.config import EvaluationConfig
from glintru_model.evaluation.evaluate import evaluate

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # ranx compiles itself for most of a minute

CUTOFFS = (1, 5, 10, 20)
NAMES = ("ndcg", "recall", "mrr")


def scores_of(kind, history):
    rng = np.random.default_rng(history)
    if kind == "random":
        return rng.random(30).tolist()
    if kind == "tied":  # five levels for 30 items: every target is tied
        return rng.integers(0, 5, size=30).astype(float).tolist()
    return [1.0] * 30


def as_run(dataset, cases, kind, filter_seen):
    """Each case's candidates as scores without ties: whatever is tied with the target stands just above it."""
    run = {}
    for row in range(len(cases)):
        history = dataset.item_ids[cases.history_starts[row] : cases.history_ends[row]].tolist()
        scores = scores_of(kind, history)
        target = int(cases.targets[row])
        above = sorted((i + 1 for i in range(30) if i + 1 != target), key=lambda item: -scores[item - 1])
        place = sum(scores[item - 1] >= scores[target - 1] for item in above)
        order = [*above[:place], target, *above[place:]]
        candidates = [item for item in order if not (filter_seen and item in history)]
        run[f"case-{row}"] = {str(item): float(-position) for position, item in enumerate(candidates)} or {"0": 0.0}
    return run


@pytest.mark.parametrize("filter_seen", [True, False])
@pytest.mark.parametrize("kind", ["random", "tied", "constant"])
def test_metrics_agree_with_ranx(random_dataset, function_scorer, kind, filter_seen):
    ranx = pytest.importorskip("ranx")
    config = EvaluationConfig(cutoffs=CUTOFFS, filter_seen=filter_seen, bootstrap_samples=100, sampled_negatives=0)
    ours = evaluate(function_scorer(lambda history: scores_of(kind, history)), random_dataset, "test", config)
    cases = random_dataset.cases("test")
    qrels = ranx.Qrels({f"case-{row}": {str(target): 1} for row, target in enumerate(cases.targets.tolist())})
    run = ranx.Run(as_run(random_dataset, cases, kind, filter_seen))
    names = [f"{name}_at_{k}" for name in NAMES for k in CUTOFFS]
    theirs = ranx.evaluate(qrels, run, [name.replace("_at_", "@") for name in names])
    for name in names:
        assert ours.metrics[name].value == pytest.approx(theirs[name.replace("_at_", "@")], abs=1e-6), name
