"""What the reports call things, and their verdicts as plain sentences."""

from collections.abc import Iterable, Mapping
from typing import Any

from glintru_model.evaluation.metrics import MAIN_METRIC

_TITLES = {
    "glintru": "GLINT-RU",
    "sasrec": "SASRec",
    "popularity": "popularity",
    "recent_popularity": "recent popularity",
    "item_knn": "ItemKNN",
    "markov_chain": "Markov chain",
    "ndcg": "NDCG",
    "mrr": "MRR",
    "popularity_bias": "Popularity bias",
}


def title_of(name: str) -> str:
    """Return what a reader calls a model or a baseline."""
    return _TITLES.get(name, name)


def metric_title(metric: str) -> str:
    """Write `ndcg_at_10` as `NDCG@10`, `ndcg_at_10_pop100` as `NDCG@10, pop100`."""
    name, _, rest = metric.partition("_at_")
    cutoff, _, sampled = rest.partition("_")
    return f"{_TITLES.get(name, name.capitalize())}@{cutoff}{', ' if sampled else ''}{sampled}"


def is_sampled(metric: str) -> bool:
    """Say whether a metric was measured among sampled candidates: `ndcg_at_10_pop100`."""
    return "_pop" in metric.partition("_at_")[2]


def in_reading_order(metrics: Iterable[str]) -> list[str]:
    """Order metric names: NDCG, Recall, MRR, then the others; each by its cutoff."""
    first = ("ndcg", "recall", "mrr")

    def place(metric: str) -> tuple[int, str, int]:
        name, _, rest = metric.partition("_at_")
        cutoff = rest.partition("_")[0]
        return (first.index(name) if name in first else len(first)), name, int(cutoff or 0)

    return sorted(metrics, key=place)


def baseline_verdict(name: str, document: dict[str, Any]) -> tuple[bool, str]:
    """Say whether a model beats every baseline on NDCG@10: the 95 % interval of each difference must lie above 0.

    Args:
        name: the model's.
        document: its `metrics.json`.
    """
    pairs = {other: metrics[MAIN_METRIC] for other, metrics in document["baseline_comparisons"].items()}
    beaten = {other: pair for other, pair in pairs.items() if pair["low"] > 0}
    model, metric = title_of(name), metric_title(MAIN_METRIC)
    if len(beaten) == len(pairs):
        strongest = min(pairs, key=lambda other: pairs[other]["difference"])
        lead = f"the strongest, {title_of(strongest)}, by {_signed(pairs[strongest])}"
        return True, f"{model} beats every baseline on {metric}; {lead}."
    unbeaten = [f"{title_of(o)} (difference {_signed(pair)})" for o, pair in pairs.items() if o not in beaten]
    rest = f"; it beats {_listed([title_of(other) for other in beaten])}" if beaten else ""
    return False, f"{model} does not beat {_listed(unbeaten)} on {metric}{rest}."


def comparison_verdict(comparison: dict[str, Any]) -> str:
    """Say which of two models ranks better on NDCG@10, or that the users do not tell.

    Args:
        comparison: what `compare` returned.
    """
    first, second = title_of(comparison["first"]), title_of(comparison["second"])
    pair, metric = comparison["metrics"][MAIN_METRIC], metric_title(MAIN_METRIC)
    users = f"{comparison['num_users']:,} users"
    if pair["low"] <= 0 <= pair["high"]:
        return (
            f"Neither of {first} and {second} is better on {metric} as far as {users} can tell: "
            f"difference {_signed(pair)}, p = {pair['p_value']:.2g}."
        )
    if pair["difference"] < 0:
        first, second = second, first
        pair = {**pair, "difference": -pair["difference"], "low": -pair["high"], "high": -pair["low"]}
    return f"{first} is better than {second} on {metric} by {_signed(pair)}, p = {pair['p_value']:.2g}, {users}."


def _signed(pair: dict[str, float]) -> str:
    return f"{pair['difference']:.4f}, 95 % interval {pair['low']:.4f} to {pair['high']:.4f}"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def cases_in_words(document: Mapping[str, Any]) -> str:
    """Say how many questions were asked: one a user, or one an event."""
    if document["config"].get("targets") == "successive":
        return f"{document['num_users']:,} users (all {document['num_cases']:,} events in turn)"
    return f"{document['num_cases']:,} users (the last event of each)"
