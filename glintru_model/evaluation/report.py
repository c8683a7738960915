"""Two reports: of one model's evaluation, and of a whole pipeline run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glintru_model.data.report import distribution_figures
from glintru_model.evaluation import figures, report_sections
from glintru_model.evaluation.metrics import MAIN_METRIC
from glintru_model.evaluation.result import read_metrics
from glintru_model.evaluation.wording import (
    baseline_verdict,
    cases_in_words,
    comparison_verdict,
    metric_title,
    title_of,
)
from glintru_model.html import Page

_OF_TRIAL = ("number", "state", "value", "epochs", "seconds")  # what a trial's row holds beside its hyperparameters


def write_evaluation_report(
    path: Path, name: str, evaluation_dir: Path, training: Mapping[str, Any] | None = None
) -> None:
    """Write the report of one model on one split.

    Args:
        path: the HTML file.
        name: the model's.
        evaluation_dir: the folder that `Evaluation.write` filled.
        training: its `training.json` (a `TrainingResult`), for learning curve and cost.

    Raises:
        DataError: the evaluation's files are missing.
        StorageError: the disk refused.
    """
    document = read_metrics(evaluation_dir)
    page = Page(
        f"{title_of(name)}: evaluation",
        f"{document['split'].capitalize()} targets of {cases_in_words(document)}, ranked among all "
        f"{document['num_items']:,} items",
    )
    beats_all, verdict = baseline_verdict(name, document)
    page.add_notice(verdict, "good" if beats_all else "bad")
    page.add_section("Metrics")
    report_sections.add_metrics(page, {name: document})
    page.add_section("Where it does well")
    report_sections.add_groups(page, {name: document})
    if training:
        page.add_section("Training")
        report_sections.add_learning_curves(page, {name: training})
        report_sections.add_cost(page, {name: training}, {name: document})
    page.add_section("Sample recommendations")
    report_sections.add_samples(page, {name: document})
    page.add_section("How it was measured")
    report_sections.add_method(page, document)
    page.write(path)


def write_run_report(
    path: Path,
    *,
    data_report: Mapping[str, Any],
    manifest: Mapping[str, Any],
    ceiling: Mapping[str, float] | None,
    studies: Mapping[str, Sequence[Mapping[str, Any]]],
    evaluations: Mapping[str, Path],
    trainings: Mapping[str, Mapping[str, Any]],
    versions: Sequence[Mapping[str, Any]],
    comparison: Mapping[str, Any],
) -> None:
    """Write the one page over a pipeline run: its verdict first, then what it rests on.

    Args:
        path: the HTML file.
        data_report: what `ingest` reported.
        manifest: that of the sequences.
        ceiling: metrics of the best possible ranking, where the log is synthetic.
        studies: each model's trials: number, state, value, epochs, seconds, and each hyperparameter.
        evaluations: each model's evaluation folder.
        trainings: each model's `training.json`.
        versions: the registered versions: model, name, version, alias, reason.
        comparison: what `compare` returned.

    Raises:
        DataError: an evaluation's files are missing.
        StorageError: the disk refused.
    """
    documents = {name: read_metrics(directory) for name, directory in evaluations.items()}
    models = " and ".join(title_of(name) for name in documents)
    page = Page(f"{models} side by side", _subtitle(manifest))
    _add_verdicts(page, documents, ceiling, comparison)
    page.add_section("Metrics")
    report_sections.add_metrics(page, documents, ceiling)
    page.add_section("Where each model wins")
    report_sections.add_groups(page, documents)
    report_sections.add_differences(page, dict(comparison))
    page.add_section("Sample recommendations")
    report_sections.add_samples(page, documents)
    page.add_section("Training and its cost")
    report_sections.add_learning_curves(page, trainings)
    report_sections.add_cost(page, trainings, documents)
    _add_tuning(page, studies)
    _add_data(page, data_report, manifest)
    page.add_section("Registered versions")
    keys = ("name", "version", "alias", "reason")
    page.add_table("", keys, [[version[key] or None for key in keys] for version in versions])
    page.add_section("How it was measured")
    report_sections.add_method(page, next(iter(documents.values())))
    page.write(path)


def _subtitle(manifest: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{manifest[f'num_{what}']:,} {what}" for what in ("users", "items", "interactions"))
    return f"{manifest['source']}: {counts}"


def _add_verdicts(
    page: Page,
    documents: Mapping[str, Mapping[str, Any]],
    ceiling: Mapping[str, float] | None,
    comparison: Mapping[str, Any],
) -> None:
    page.add_notice(comparison_verdict(dict(comparison)))
    for name, document in documents.items():
        beats_all, verdict = baseline_verdict(name, dict(document))
        page.add_notice(verdict, "good" if beats_all else "bad")
    first = next(iter(documents.values()))
    title = f"test {metric_title(MAIN_METRIC)}"
    cards: dict[str, Any] = {
        f"{title_of(name)}, {title}": report_sections.cell(document["metrics"][MAIN_METRIC])
        for name, document in documents.items()
    }
    best = max(first["baselines"], key=lambda name: first["baselines"][name][MAIN_METRIC]["value"])
    cards[f"{title_of(best)}, the best baseline"] = report_sections.cell(first["baselines"][best][MAIN_METRIC])
    if ceiling:
        cards["best possible"] = ceiling[MAIN_METRIC]
    page.add_cards(cards)


def _add_tuning(page: Page, studies: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    page.add_section("Tuning", f"Each trial trains briefly and reports its validation {metric_title(MAIN_METRIC)}.")
    colours = figures.model_colours(list(studies))
    by_trial = [figures.trial_dots(title_of(name), trials, colours[name]) for name, trials in studies.items()]
    page.add_figures(
        "", by_trial, note="Open points are trials that were pruned: stopped early, being worse than others."
    )
    tuned = dict.fromkeys(
        key for trials in studies.values() for trial in trials for key in trial if key not in _OF_TRIAL
    )
    page.add_figures(
        "By hyperparameter", [figures.hyperparameter_dots(parameter, studies, colours) for parameter in tuned]
    )
    for name, trials in studies.items():
        keys = list(dict.fromkeys(key for trial in trials for key in trial))
        rows = [[trial.get(key) for key in keys] for trial in trials]
        page.add_table(f"{title_of(name)}: all {len(trials)} trials", keys, rows, collapsed=True)


def _add_data(page: Page, data_report: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    page.add_section("Data", f"Split: {manifest['split'].replace('_', ' ')}. Dataset {manifest['dataset_hash'][:12]}.")
    parts = ("users", "items", "interactions", "train", "validation", "test")
    labels = {"train": "training events", "validation": "validation events", "test": "test events"}
    page.add_cards({labels.get(part, part): manifest[f"num_{part}"] for part in parts})
    for warning in data_report["warnings"]:
        page.add_notice(warning, "bad")
    columns = ["step", "num_users", "num_items", "num_interactions"]
    titles = [column.removeprefix("num_") for column in columns]
    rows = [[step[column] for column in columns] for step in data_report["steps"]]
    page.add_figures("", distribution_figures(data_report))
    page.add_table("What each step of cleaning left", titles, rows)
    page.add_table(
        "Settings of reading and cleaning", ["setting", "value"], _flat(data_report["settings"]), collapsed=True
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[list[Any]]:
    rows: list[list[Any]] = []
    for key, value in values.items():
        rows += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [[f"{prefix}{key}", value]]
    return rows
