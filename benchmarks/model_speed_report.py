"""What `benchmarks.model_speed` measured, for the eye: a line per run, tables for the terminal, a page with plots."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.own_training import BFLOAT16
from glintru_model.html import Page, format_number
from pipelines.summary import text_table

OWN = {
    "sasrec": "SASRec",
    "sasrec" + BFLOAT16: "SASRec, bfloat16",
    "glintru": "GLINT-RU causal",
    "glintru" + BFLOAT16: "GLINT-RU causal, bfloat16",
    "glintru-paper": "GLINT-RU paper",
}
PEERS = {"rectools-sasrec": "RecTools SASRec", "recbole-sasrec": "RecBole SASRec", "recbole-gru4rec": "RecBole GRU4Rec"}
NAMES = OWN | PEERS

Runs = Mapping[str, dict[str, Any]]


@dataclass(frozen=True)
class Target:
    """What a model's figure, or its ratio to a peer's, must reach.

    Attributes:
        figure: key of a run's result.
        model, peer: names of runs; without a peer the figure itself is asked for.
        bounds: the bound for each max_seq_len that has one.
        at_most: the figure must stay below the bound instead of reaching it.
    """

    figure: str
    model: str
    peer: str
    bounds: Mapping[int, float]
    at_most: bool = False

    def value(self, runs: Runs) -> float | None:
        """Return the figure or the ratio; None where a run is missing."""
        if self.model not in runs or (self.peer and self.peer not in runs):
            return None
        value = float(runs[self.model][self.figure])
        return value / runs[self.peer][self.figure] if self.peer else value

    def row(self, runs: Runs, max_seq_len: int) -> list[str]:
        """Return what it is, the value, the bound and the verdict."""
        value, bound = self.value(runs), self.bounds.get(max_seq_len)
        what = f"{_FIGURES[self.figure]}, {NAMES[self.model]}" + (f" / {NAMES[self.peer]}" if self.peer else "")
        asked = f"{'<' if self.at_most else '≥'} {bound:g}" if bound is not None else "-"
        if value is None:
            return [what, "-", asked, "not measured"]
        if bound is None:
            return [what, format_number(value), asked, "-"]
        met = value < bound if self.at_most else value >= bound
        return [what, format_number(value), asked, "met" if met else "not met"]


_FIGURES = {
    "targets_per_second": "targets/s",
    "share_of_matrix_rate": "share of the matrix rate",
    "peak_gb": "peak GB",
    "users_per_second": "top-10 users/s",
}
# By max_seq_len: 200 is that of MovieLens-1M, 50 that of Amazon Beauty, whose histories are mostly far shorter, so that
# RecTools computes padding. RecBole takes each prefix as a sample, the more costly the longer they are. Logs of another
# length have no bounds.
TARGETS = (
    Target("targets_per_second", "sasrec", "rectools-sasrec", {200: 5, 50: 20}),
    Target("targets_per_second", "sasrec", "recbole-sasrec", {200: 300}),
    Target("targets_per_second", "glintru", "rectools-sasrec", {200: 5, 50: 5}),
    *(Target("share_of_matrix_rate", model, "", {200: 0.5, 50: 0.5}) for model in ("sasrec", "glintru")),
    *(Target("peak_gb", model, "", {200: 1.5, 50: 1.5}, at_most=True) for model in ("sasrec", "glintru")),
    *(
        Target("users_per_second", model, peer, {200: 2, 50: 2})
        for model in ("sasrec", "glintru")
        for peer in ("recbole-sasrec", "recbole-gru4rec")
    ),
)
_TARGET_COLUMNS = ["asked for", "measured", "bound", "verdict"]


def in_words(run: dict[str, Any], goal: float) -> str:
    """Say in one line how a run went."""
    if "error" in run:
        return f"failed: {run['error']}"
    share = f", {run['share_of_matrix_rate']:.0%} of the matrix rate" if "share_of_matrix_rate" in run else ""
    return (
        f"{run['targets_per_second']:,.0f} targets/s{share}, peak {run['peak_gb']:.2f} GB, top-10 of "
        f"{run['users_per_second']:,.0f} users/s, NDCG@10 {goal}: {_reached(run, goal)}"
    )


def text_tables(results: dict[str, Any]) -> str:
    """Lay out for each log what was measured, which runs failed, and what is asked for."""
    lines: list[str] = []
    for log, found in results["logs"].items():
        lines += ["", _title(log, found, results), ""]
        columns, rows = _measured(found)
        lines += text_table([columns, *([_cell(value) for value in row] for row in rows)])
        lines += [*_failures(found), ""]
        if not _is_on_gpu(results):
            lines += text_table([_TARGET_COLUMNS, *_verdicts(found)])
    return "\n".join(lines)


def write_page(results: dict[str, Any], path: Path) -> None:
    """Write the same, and plots, as one HTML page."""
    page = Page("Training and scoring speed", _hardware(results))
    for log, found in results["logs"].items():
        page.add_section(_title(log, found, results))
        page.add_table("", *_measured(found))
        for failure in _failures(found):
            page.add_notice(failure, "bad")
        if not _is_on_gpu(results):  # what is asked for is asked of a core
            page.add_table("What is asked for", _TARGET_COLUMNS, _verdicts(found))
        runs = _done(found)
        page.add_figures(
            "Side by side",
            [
                _bars("Training targets per second", "targets_per_second", runs, is_log=True),
                _bars("Users per second, top-10", "users_per_second", runs, is_log=True),
                _bars("Peak memory, GB", "peak_gb", runs),
                _curves(runs, found["goal"]),
            ],
        )
    page.write(path)


def _is_on_gpu(results: dict[str, Any]) -> bool:
    return "gpu" in results["hardware"]


def _hardware(results: dict[str, Any]) -> str:
    hardware = results["hardware"]
    return str(hardware["gpu"]) if _is_on_gpu(results) else f"one core of: {hardware['processor']}"


def _title(log: str, found: dict[str, Any], results: dict[str, Any]) -> str:
    return f"{log}, max_seq_len {found['max_seq_len']}, {results['seconds']:.0f} s of training each"


def _done(found: dict[str, Any]) -> Runs:
    """Return the runs that ended well, own models first."""
    return {name: found["runs"][name] for name in NAMES if "error" not in found["runs"].get(name, {"error": ""})}


def _failures(found: dict[str, Any]) -> list[str]:
    return [f"{NAMES[name]} failed: {run['error']}" for name, run in found["runs"].items() if "error" in run]


def _verdicts(found: dict[str, Any]) -> list[list[str]]:
    return [target.row(_done(found), found["max_seq_len"]) for target in TARGETS]


def _measured(found: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    goal = f"NDCG@10 {found['goal']} after"
    columns = ["model", "targets/s", "share of matrix rate", "peak GB", "top-10 users/s", goal]
    rows = [
        [
            NAMES[name],
            round(run["targets_per_second"]),
            f"{run['share_of_matrix_rate']:.0%}" if "share_of_matrix_rate" in run else None,
            float(run["peak_gb"]),
            round(run["users_per_second"]),
            _reached(run, found["goal"]),
        ]
        for name, run in _done(found).items()
    ]
    return columns, rows


def _reached(run: dict[str, Any], goal: float) -> str:
    seconds = next((seconds for seconds, value in run["curve"] if value >= goal), None)
    if seconds is not None:
        return f"{seconds:.0f} s"
    return f"not in {run['seconds_trained']:.0f} s ({run['curve'][-1][1]:.4f})"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _bars(title: str, key: str, runs: Runs, *, is_log: bool = False) -> dict[str, Any]:
    names = list(runs)[::-1]
    values = [runs[name][key] for name in names]
    colours = ["var(--series-1)" if name in OWN else "var(--muted)" for name in names]
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": [NAMES[name] for name in names],
        "x": values,
        "marker": {"color": colours},
        "text": [f"{value:,.0f}" if is_log else f"{value:.2f}" for value in values],
        "textposition": "outside",
        "cliponaxis": False,
    }
    x_axis = {"type": "log", "dtick": 1} if is_log else {}
    layout = {"title": title, "xaxis": x_axis, "yaxis": {"automargin": True}, "margin": {"r": 70}}
    return {"data": [bars], "layout": layout}


def _dash(name: str) -> str:
    return "dot" if name in PEERS else "dash" if name.endswith(BFLOAT16) else "solid"


def _curves(runs: Runs, goal: float) -> dict[str, Any]:
    in_float32 = [name for name in NAMES if not name.endswith(BFLOAT16)]
    colours = {name: f"var(--series-{number})" for number, name in enumerate(in_float32, start=1)}
    lines = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": NAMES[name],
            "x": [seconds for seconds, _ in run["curve"]],
            "y": [value for _, value in run["curve"]],
            "line": {"color": colours[name.removesuffix(BFLOAT16)], "dash": _dash(name)},
        }
        for name, run in runs.items()
    ]
    place = {"x0": 0, "x1": 1, "xref": "paper", "y0": goal, "y1": goal, "layer": "below"}
    at_goal = {"type": "line", **place, "line": {"color": "var(--muted)", "width": 1.2, "dash": "dash"}}
    layout = {
        "title": "NDCG@10 on validation over seconds of training",
        "xaxis": {"title": {"text": "seconds"}, "rangemode": "tozero"},
        "yaxis": {"rangemode": "tozero"},
        "shapes": [at_goal],
    }
    return {"data": lines, "layout": layout}
