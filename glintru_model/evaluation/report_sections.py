"""The parts of which the evaluation reports are made; each adds itself to a page."""

from collections.abc import Mapping, Sequence
from typing import Any

from glintru_model.evaluation import figures
from glintru_model.evaluation.baselines import BASELINES
from glintru_model.evaluation.metrics import MAIN_CUTOFF, MAIN_METRIC
from glintru_model.evaluation.wording import cases_in_words, in_reading_order, is_sampled, metric_title, title_of
from glintru_model.html import Interval, Page

Document = Mapping[str, Any]
GROUP_AXES = {"history_length": "events in the history", "item_popularity": "training events of the target"}
_GROUP_CAPTIONS = {"history_length": "By length of the history", "item_popularity": "By popularity of the target"}
_RANKED_BY = (MAIN_METRIC, f"recall_at_{MAIN_CUTOFF}")
_MIB = 2**20


def add_metrics(page: Page, documents: Mapping[str, Document], ceiling: Mapping[str, float] | None = None) -> None:
    """Add every metric of models and baselines (and the best possible, where known), as table and as plots.

    Args:
        page: takes the parts.
        documents: for each model its `metrics.json`; the baselines are read from the first, they are the same in all.
        ceiling: metric values of the best possible ranking.
    """
    estimates = _all_estimates(documents)
    columns = list(estimates)
    by_rank = [m for m in in_reading_order(next(iter(estimates.values()))) if m.startswith(("ndcg", "recall", "mrr"))]
    sampled = [metric for metric in by_rank if is_sampled(metric)]
    rows = [
        [*row, *([ceiling.get(metric)] if ceiling else [])]
        for metric in by_rank
        if not is_sampled(metric)
        for row in [_metric_row(metric, columns, estimates)]
    ]
    titles = [title_of(name) for name in columns]
    colours = figures.model_colours(list(documents))
    page.add_figures(
        "",
        [
            figures.metric_dots(
                metric, {name: estimates[name][metric] for name in columns}, colours, (ceiling or {}).get(metric)
            )
            for metric in _RANKED_BY
        ],
    )
    page.add_table("Ranking metrics", ["", *titles, *(["best possible"] if ceiling else [])], rows)
    _add_hits(page, next(iter(documents.values())), columns, estimates)
    _add_list_metrics(page, columns, estimates)
    if sampled:
        drawn = next(iter(documents.values()))["config"]["sampled_negatives"]
        page.add_table(
            f"Among {drawn} sampled items (for comparison with the GLINT-RU paper's tables only)",
            ["", *titles],
            [_metric_row(metric, columns, estimates) for metric in sampled],
            note="The target among items drawn by popularity, nothing filtered. Such figures lie far above full "
            "ranking; nothing is decided by them.",
            collapsed=True,
        )


def add_groups(page: Page, documents: Mapping[str, Document]) -> None:
    """Plot NDCG@10 by history length and by item popularity, models beside the best baseline."""
    first = next(iter(documents.values()))
    best_baseline = max(first["baselines"], key=lambda name: first["baselines"][name][MAIN_METRIC]["value"])
    colours = figures.model_colours(list(documents))
    plots = []
    for group, caption in _GROUP_CAPTIONS.items():
        lines: dict[str, Any] = {name: document["groups"][group] for name, document in documents.items()}
        lines[best_baseline] = [{**row, "metrics": row["baselines"][best_baseline]} for row in first["groups"][group]]
        plots.append(figures.group_lines(caption, GROUP_AXES[group], lines, colours))
    note = "Groups hold about equally many users; bars are 95 % intervals. The dotted line is the best baseline."
    page.add_figures("", plots, note=note)


def add_differences(page: Page, comparison: Mapping[str, Any]) -> None:
    """Show where each of two models is ahead: by group of users, by metric, and target by target."""
    first, second = comparison["first"], comparison["second"]
    page.add_figures(
        f"Difference of the two, {metric_title(MAIN_METRIC)}",
        [
            figures.group_differences(caption, GROUP_AXES[group], comparison["groups"][group])
            for group, caption in _GROUP_CAPTIONS.items()
        ],
        note=f"Above the line {title_of(first)} is ahead, below it {title_of(second)}; where a point is grey, its 95 % "
        "interval (paired bootstrap over the same users) contains 0.",
    )
    rows = [
        [metric_title(name), Interval(*(pair[key] for key in ("difference", "low", "high"))), pair["p_value"]]
        for name, pair in ((name, comparison["metrics"][name]) for name in in_reading_order(comparison["metrics"]))
    ]
    names = f"{title_of(first)} minus {title_of(second)}"
    page.add_table(names, ["", "difference", "p-value"], rows, note="Paired bootstrap, two-sided.")
    hits = comparison[f"hits_at_{MAIN_CUTOFF}"]
    labels = {
        "both": "both models",
        "first_only": f"{title_of(first)} only",
        "second_only": f"{title_of(second)} only",
        "neither": "neither",
    }
    total = comparison["num_cases"]
    counted = [[label, hits[key], 100 * hits[key] / total] for key, label in labels.items()]
    page.add_table(f"Whose top {MAIN_CUTOFF} holds the item that the user took", ["", "targets", "%"], counted)


def add_learning_curves(page: Page, trainings: Mapping[str, Mapping[str, Any]]) -> None:
    """Plot what each epoch reached."""
    page.add_figures("", figures.learning_curves(trainings, figures.model_colours(list(trainings))))


def add_cost(page: Page, trainings: Mapping[str, Mapping[str, Any]], documents: Mapping[str, Document]) -> None:
    """Add what training and scoring took, a row for each model."""
    stops = {
        "patience": "no better epoch for long enough",
        "max_epochs": "number of epochs",
        "max_seconds": "time limit",
    }
    rows = []
    for name, training in trainings.items():
        epochs = training["history"]
        rates = [epoch["targets_per_second"] for epoch in epochs]
        rows.append(
            [
                title_of(name),
                training["num_parameters"],
                training["seconds"],
                len(epochs),
                training["best_epoch"],
                sum(rates) / len(rates) if rates else None,
                training["peak_memory_bytes"] / _MIB,
                documents[name]["num_cases"] / max(documents[name]["seconds"], 1e-9),
                stops.get(training["stopped"], training["stopped"]),
            ]
        )
    columns = ["", "parameters", "training, s", "epochs", "best epoch", "targets/s", "peak memory, MiB"]
    page.add_table("", [*columns, "users ranked/s", "stopped by"], rows)


def add_samples(page: Page, documents: Mapping[str, Document]) -> None:
    """Show a few users' histories, what they took, and what each model recommends."""
    names = list(documents)
    for index, sample in enumerate(documents[names[0]]["samples"]):
        of_model = {name: documents[name]["samples"][index] for name in names}
        target = sample["target"]
        ranks = ", ".join(f"{title_of(name)} rank {of_model[name]['rank']:,}" for name in names)
        lists = [of_model[name]["recommended"] for name in names]
        rows = [
            [place + 1, *(_marked(items[place], target) if place < len(items) else None for items in lists)]
            for place in range(max(len(items) for items in lists))
        ]
        page.add_table(
            f"User {sample['user']} took {target}: {ranks}",
            ["place", *(title_of(name) for name in names)],
            rows,
            note=f"Latest items of the history, newest last: {' · '.join(sample['history'])}",
            collapsed=True,
        )


def add_method(page: Page, document: Document) -> None:
    """State how the figures were measured."""
    seen = (
        f"The items of a user's history are no candidates; this removes {document['num_removed_targets']:,} of the "
        f"{document['num_cases']:,} targets, which count as misses."
        if document["filter_seen"]
        else "The items of a user's history stay candidates."
    )
    page.add_text(
        f"Full ranking over all {document['num_items']:,} items for the {document['split']} targets of "
        f"{cases_in_words(document)}, each given everything before it; no sampled candidates, unless a name says "
        f"pop100 (or as many as were drawn). {seen} "
        f"Ties: {document['tie_rule']}. Intervals: {100 * document['confidence']:.0f} % percentile bootstrap over "
        f"users, {document['config']['bootstrap_samples']:,} resamples. Baselines are fitted on the training part only."
    )


def _metric_row(metric: str, columns: Sequence[str], estimates: Mapping[str, Any]) -> list[Any]:
    best = max(estimates[name][metric]["value"] for name in columns)
    cells = [cell(estimates[name][metric], best=estimates[name][metric]["value"] == best) for name in columns]
    return [metric_title(metric), *cells]


def _add_hits(page: Page, document: Document, columns: Sequence[str], estimates: Mapping[str, Any]) -> None:
    """Add how many targets each scorer has within each cutoff: its recall, counted."""
    total = document["num_cases"]
    rows = [
        [f"Hits@{k}", *(round(estimates[name][f"recall_at_{k}"]["value"] * total) for name in columns)]
        for k in document["config"]["cutoffs"]
    ]
    titles = ["", *(title_of(name) for name in columns)]
    page.add_table(f"Hit counts, of {total:,} targets", titles, rows, collapsed=True)


def _add_list_metrics(page: Page, columns: Sequence[str], estimates: Mapping[str, Any]) -> None:
    shown = {"coverage": 100, "novelty": 1, "popularity_bias": 1}  # coverage in %
    rows = [
        [title_of(name), *(_scaled(estimates[name][f"{of}_at_{MAIN_CUTOFF}"], by) for of, by in shown.items())]
        for name in columns
    ]
    page.add_table(
        f"What is in the top {MAIN_CUTOFF}",
        ["", "catalogue covered, %", "novelty, bits", "popularity bias, doublings"],
        rows,
        note="Novelty: mean of -log2 of an item's share of all training events. Popularity bias: how many doublings "
        "more popular the recommended items are than the one that the user took; 0 is unbiased.",
    )


def _all_estimates(documents: Mapping[str, Document]) -> dict[str, Mapping[str, Any]]:
    first = next(iter(documents.values()))
    baselines = {name: first["baselines"][name] for name in BASELINES if name in first["baselines"]}
    return {**{name: document["metrics"] for name, document in documents.items()}, **baselines}


def cell(estimate: Mapping[str, float], *, best: bool = False) -> Interval:
    """Turn an estimate of `metrics.json` into a table cell."""
    return Interval(estimate["value"], estimate["low"], estimate["high"], best)


def _scaled(estimate: Mapping[str, float], by: float) -> Interval:
    return Interval(by * estimate["value"], by * estimate["low"], by * estimate["high"])


def _marked(item: str, target: str) -> str:
    return f"✓ {item}" if item == target else item
