"""The study's page: every trial, and what the hyperparameters did."""

from pathlib import Path
from typing import Any

from glintru_model.html import Page
from glintru_model.tuning.study import load_study, trial_rows

_ENOUGH_FOR_IMPORTANCES = 6


def write_study_report(path: Path, storage: str, study_name: str, title: str) -> None:
    """Write the plots and the table of a study as one HTML file.

    Args:
        path: the file.
        storage, study_name: as in `open_study`.
        title: what was tuned.

    Raises:
        TrackingError: there is no such study, or its storage is not reachable.
        StorageError: the disk refused.
    """
    rows = trial_rows(storage, study_name)
    complete = [row for row in rows if row["state"] == "complete"]
    page = Page(f"Tuning {title}", f"study {study_name}, by validation NDCG@10")
    counts = {state: sum(row["state"] == state for row in rows) for state in ("complete", "pruned", "failed")}
    configured = next((row["value"] for row in complete if row["number"] == 0), None)
    best = max((row["value"] for row in complete), default=None)
    page.add_cards({"best": best, "with the configured settings": configured, **counts})
    page.add_figures("How the trials went", study_figures(storage, study_name))
    columns = list(dict.fromkeys(key for row in rows for key in row))
    page.add_table("All trials", columns, [[row.get(key) for key in columns] for row in rows])
    page.write(path)


def study_figures(storage: str, study_name: str) -> list[Any]:
    """Plot the course of the study, each trial's epochs, each hyperparameter, and, with enough trials, what mattered.

    Returns:
        Plotly figures; none while no trial has completed.

    Raises:
        TrackingError: there is no such study, or its storage is not reachable.
    """
    import optuna.visualization as plots
    from optuna.trial import TrialState

    study = load_study(storage, study_name)
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        return []
    plain = {"color": None, "showscale": False, "line": {"width": 0}}  # Optuna's shades by number fade into the page
    course = plots.plot_optimization_history(study, target_name="validation NDCG@10")
    epochs = plots.plot_intermediate_values(study)
    course.update_traces(line_shape="hv", selector={"mode": "lines"})
    figures = [
        course.update_layout(title="Best trial so far"),
        epochs.update_layout(title="Every trial, epoch by epoch", xaxis_title="epoch", yaxis_title="NDCG@10"),
    ]
    for name in complete[0].params:
        shown = plots.plot_slice(study, params=[name], target_name="validation NDCG@10")
        figures.append(shown.update_traces(marker=plain).update_layout(title=f"{name} of each trial"))
    if len(complete) >= _ENOUGH_FOR_IMPORTANCES and len({trial.value for trial in complete}) > 1:
        evaluator = optuna_importance(seed=0)
        importances = plots.plot_param_importances(study, evaluator=evaluator, target_name="validation NDCG@10")
        figures.append(importances.update_layout(title="Share of the differences that each explains"))
    return figures


def optuna_importance(seed: int) -> Any:
    """Make the importance evaluator with a fixed seed, so that a report can be written twice alike."""
    from optuna.importance import FanovaImportanceEvaluator

    return FanovaImportanceEvaluator(seed=seed)
