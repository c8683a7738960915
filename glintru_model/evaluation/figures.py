"""The plots of the evaluation reports, as plain plotly dicts; colours are named by role (see `glintru_model.html`)."""

from collections.abc import Mapping, Sequence
from typing import Any

from glintru_model.evaluation.metrics import MAIN_METRIC
from glintru_model.evaluation.wording import metric_title, title_of

Figure = dict[str, Any]
_MODEL_COLOURS = ("var(--series-1)", "var(--series-2)", "var(--series-3)", "var(--series-4)")
_BASELINE_COLOUR = "var(--series-6)"
_ROW_HEIGHT = 34
_VALIDATION_AXIS = {"title": {"text": f"validation {metric_title(MAIN_METRIC)}"}}


def model_colours(names: Sequence[str]) -> dict[str, str]:
    """Give each model its colour, the same in every plot of a report."""
    return {name: _MODEL_COLOURS[index % len(_MODEL_COLOURS)] for index, name in enumerate(names)}


def metric_dots(
    metric: str,
    estimates: Mapping[str, Mapping[str, float]],
    colours: Mapping[str, str],
    ceiling: float | None = None,
) -> Figure:
    """Plot one metric of every scorer with its interval, best on top, and the best possible value where known."""
    names = sorted(estimates, key=lambda name: estimates[name]["value"])
    values = [estimates[name]["value"] for name in names]
    paint = [colours.get(name, _BASELINE_COLOUR) for name in names]
    bounds = [[estimates[name][bound] for name in names] for bound in ("low", "high")]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": values,
        "y": [title_of(name) for name in names],
        "marker": {"color": paint, "size": 10},
        "customdata": list(zip(*bounds, strict=True)),
        "hovertemplate": "%{y}: %{x:.4f}<br>95 %: %{customdata[0]:.4f} to %{customdata[1]:.4f}<extra></extra>",
        "showlegend": False,
    }
    bars = [  # one trace a point: plotly paints all error bars of a trace alike
        {
            "type": "scatter",
            "mode": "lines",
            "x": [low, high],
            "y": [title_of(name)] * 2,
            "line": {"color": colour, "width": 2},
            "hoverinfo": "skip",
            "showlegend": False,
        }
        for name, colour, low, high in zip(names, paint, *bounds, strict=True)
    ]
    layout = {
        "title": {"text": f"{metric_title(metric)} with 95 % intervals"},
        "height": 90 + _ROW_HEIGHT * len(names),
        "xaxis": {"range": [0, 1.06 * max(*bounds[1], ceiling or 0)], "showgrid": True},
        "yaxis": {"showgrid": False},
    }
    if ceiling is not None:
        layout["shapes"] = [{**_line(x0=ceiling, x1=ceiling, y0=0, y1=1, yref="paper"), "layer": "above"}]
        layout["annotations"] = [
            {
                "x": ceiling,
                "y": 1,
                "yref": "paper",
                "xanchor": "right",
                "yanchor": "bottom",
                "showarrow": False,
                "text": "best possible",
            }
        ]
        layout["margin"] = {"l": 48, "r": 24, "t": 24, "b": 32}
    return {"data": [*bars, trace], "layout": layout}


def learning_curves(trainings: Mapping[str, Mapping[str, Any]], colours: Mapping[str, str]) -> list[Figure]:
    """Plot validation NDCG@10 (the chosen epoch marked) and training loss against the epoch."""
    quality, loss = [], []
    for name, training in trainings.items():
        epochs = [entry["epoch"] for entry in training["history"]]
        values = [entry["validation"][MAIN_METRIC] for entry in training["history"]]
        losses = [entry["train_loss"] for entry in training["history"]]
        quality.append(_curve(name, epochs, values, colours[name], "epoch %{x}: %{y:.4f}"))
        loss.append(_curve(name, epochs, losses, colours[name], "epoch %{x}: %{y:.4f}"))
        best = training["best_epoch"]
        if best in epochs:
            chosen = {"x": [best], "y": [values[epochs.index(best)]], "mode": "markers", "showlegend": False}
            marker = {"color": colours[name], "size": 11, "symbol": "circle-open", "line": {"width": 2}}
            hover = f"{title_of(name)}, chosen: epoch %{{x}}, %{{y:.4f}}<extra></extra>"
            quality.append({"type": "scatter", **chosen, "marker": marker, "hovertemplate": hover})
    title = f"Validation {metric_title(MAIN_METRIC)}, the chosen epoch circled"
    return [_over_epochs(quality, title), _over_epochs(loss, "Training loss")]


def group_lines(
    title: str,
    axis: str,
    groups: Mapping[str, Sequence[Mapping[str, Any]]],
    colours: Mapping[str, str],
    metric: str = MAIN_METRIC,
) -> Figure:
    """Plot a metric against groups of users, one line for each scorer.

    Args:
        title: the caption.
        axis: what the groups are, e.g. `events in the history`.
        groups: for each scorer its groups in ascending order, each with `label`, `num_cases` and `metrics`.
        colours: those of the models; a scorer without one is drawn as a baseline.
        metric: which metric.
    """
    data = []
    for name, rows in groups.items():
        estimates = [row["metrics"][metric] for row in rows]
        colour = colours.get(name, _BASELINE_COLOUR)
        hover = f"{title_of(name)}: %{{y:.4f}}<br>%{{x}} {axis}, %{{customdata:,}} users<extra></extra>"
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": title_of(name),
                "x": [row["label"] for row in rows],
                "y": [estimate["value"] for estimate in estimates],
                "error_y": _error_bars(estimates, "value", colour) if name in colours else None,
                "line": {"color": colour, "width": 2, "dash": "solid" if name in colours else "dot"},
                "marker": {"size": 7},
                "customdata": [row["num_cases"] for row in rows],
                "hovertemplate": hover,
            }
        )
    y_axis = {"title": {"text": metric_title(metric)}, "rangemode": "tozero"}
    apart = {"scattermode": "group", "scattergap": 0.8}  # so that error bars do not hide each other
    return {"data": data, "layout": {"title": {"text": title}, "xaxis": _categories(axis), "yaxis": y_axis, **apart}}


def group_differences(title: str, axis: str, rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot by how much the first of two models leads the second in each group of users, with intervals."""
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": [row["label"] for row in rows],
        "y": [row["difference"] for row in rows],
        "error_y": _error_bars(rows, "difference", "var(--muted)"),
        "marker": {"size": 10, "color": [_winner_colour(row) for row in rows]},
        "customdata": [[row["low"], row["high"], row["num_cases"]] for row in rows],
        "hovertemplate": "%{x}: %{y:+.4f}<br>95 %: %{customdata[0]:+.4f} to %{customdata[1]:+.4f}<br>"
        "%{customdata[2]:,} users<extra></extra>",
        "showlegend": False,
    }
    y_axis = {"title": {"text": f"difference in {metric_title(MAIN_METRIC)}"}, "tickformat": "+.3~f"}
    zero = _line(x0=0, x1=1, xref="paper", y0=0, y1=0)
    return {
        "data": [trace],
        "layout": {"title": {"text": title}, "xaxis": _categories(axis), "yaxis": y_axis, "shapes": [zero]},
    }


def trial_dots(name: str, trials: Sequence[Mapping[str, Any]], colour: str) -> Figure:
    """Plot a study: each trial's validation NDCG@10 in the order of the trials, and the best completed one so far."""
    done = [trial for trial in trials if trial["state"] == "complete"]
    values = [trial["value"] for trial in done]
    best = {
        "type": "scatter",
        "mode": "lines",
        "name": "best so far",
        "x": [trial["number"] for trial in done],
        "y": [max(values[: index + 1]) for index in range(len(values))],
        "line": {"color": "var(--muted)", "shape": "hv", "width": 1.5},
        "hoverinfo": "skip",
    }
    dots = [_trials(trials, state, "number", colour) for state in ("complete", "pruned")]
    layout = {"xaxis": {"title": {"text": "trial"}, "tickformat": "d"}, "yaxis": _VALIDATION_AXIS}
    return {"data": [best, *(trace for trace in dots if trace["x"])], "layout": {"title": {"text": name}, **layout}}


def hyperparameter_dots(
    parameter: str, studies: Mapping[str, Sequence[Mapping[str, Any]]], colours: Mapping[str, str]
) -> Figure:
    """Plot validation NDCG@10 against one hyperparameter over all studies that tuned it; pruned trials are open."""
    data = []
    for name, trials in studies.items():
        for state in ("complete", "pruned"):
            trace = _trials(trials, state, parameter, colours[name])
            data.append({**trace, "name": title_of(name), "showlegend": state == "complete"})
    found = [value for trace in data for value in trace["x"]]
    is_log = bool(found) and min(found) > 0 and max(found) > 10 * min(found)
    x_axis: dict[str, Any] = {"title": {"text": parameter}}
    if is_log:  # plotly's own minor ticks on a log axis are lone digits
        x_axis |= {"type": "log", "tickvals": [m * 10.0**e for e in range(-9, 10) for m in (1, 3)], "tickformat": "~g"}
    layout = {"title": {"text": parameter}, "xaxis": x_axis, "yaxis": _VALIDATION_AXIS}
    return {"data": [trace for trace in data if trace["x"]], "layout": layout}


def _trials(trials: Sequence[Mapping[str, Any]], state: str, x: str, colour: str) -> dict[str, Any]:
    chosen = [t for t in trials if t["state"] == state and t.get("value") is not None and t.get(x) is not None]
    symbol = "circle" if state == "complete" else "circle-open"
    return {
        "type": "scatter",
        "mode": "markers",
        "name": state,
        "x": [trial[x] for trial in chosen],
        "y": [trial["value"] for trial in chosen],
        "marker": {"color": colour, "size": 9, "symbol": symbol, "line": {"color": colour, "width": 1.5}},
        "customdata": [trial["number"] for trial in chosen],
        "hovertemplate": f"trial %{{customdata}}, {state}: %{{y:.4f}}<br>{x} %{{x:.3~g}}<extra></extra>",
    }


def _winner_colour(row: Mapping[str, Any]) -> str:
    if row["low"] > 0:
        return _MODEL_COLOURS[0]
    return _MODEL_COLOURS[1] if row["high"] < 0 else "var(--muted)"


def _curve(name: str, x: Sequence[Any], y: Sequence[float], colour: str, hover: str) -> dict[str, Any]:
    line = {"color": colour, "width": 2}
    shown = {"name": title_of(name), "mode": "lines", "hovertemplate": f"{title_of(name)}, {hover}<extra></extra>"}
    return {"type": "scatter", "x": x, "y": y, "line": line, **shown}


def _over_epochs(data: list[dict[str, Any]], title: str) -> Figure:
    x_axis = {"title": {"text": "epoch"}, "tickformat": "d"}
    return {"data": data, "layout": {"title": {"text": title}, "xaxis": x_axis}}


def _categories(axis: str) -> dict[str, Any]:
    return {"type": "category", "title": {"text": axis}}


def _error_bars(rows: Sequence[Mapping[str, Any]], centre: str, colour: str) -> dict[str, Any]:
    up, down = [row["high"] - row[centre] for row in rows], [row[centre] - row["low"] for row in rows]
    look = {"color": colour, "thickness": 1.2, "width": 3}
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, **look}


def _line(**place: Any) -> dict[str, Any]:
    return {"type": "line", **place, "layer": "below", "line": {"color": "var(--muted)", "width": 1.2, "dash": "dot"}}
