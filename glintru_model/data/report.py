"""The data report as a page: where the log came from, what each step left, how it is distributed and split."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from glintru_model.html import Page

_SECONDS_SEEM_UNIX = range(10**8, 10**11)  # 1973 to 5138: smaller numbers are positions, larger ones milliseconds
_COLOUR = "var(--series-1)"
# plotly's own minor ticks on a log axis are lone digits
_LOG_AXIS = {"type": "log", "tickvals": [m * 10**e for e in range(12) for m in (1, 3)], "tickformat": ",d"}


def write_data_report(
    report: dict[str, Any],
    path_html: Path,
    *,
    manifest: dict[str, Any] | None = None,
    ceiling: Mapping[str, float] | None = None,
) -> None:
    """Write the report as one self-contained HTML file.

    Args:
        report: what `ingest` returned, or its `data_report.json`.
        path_html: the file to write.
        manifest: what `build_sequences` returned, where the sequences exist.
        ceiling: metrics of the best possible ranking of the test targets, where the log is synthetic.

    Raises:
        StorageError: the disk refused.
    """
    counts, source = report["counts"], report["source"]
    page = Page("Data report", source["description"])
    page.add_cards(
        {
            "users": counts["num_users"],
            "items": counts["num_items"],
            "interactions": counts["num_interactions"],
            "filled": f"{counts['num_interactions'] / (counts['num_users'] * counts['num_items']):.3%}",
            "from": _moment(report["time_range"]["first"], "%Y-%m-%d"),
            "to": _moment(report["time_range"]["last"], "%Y-%m-%d"),
        }
    )
    _add_verdicts(page, report, manifest or {}, ceiling)
    page.add_section("Quality")
    _add_quality(page, report, manifest or {})
    page.add_section("Cleaning")
    _add_steps(page, report["steps"] + (manifest or {}).get("steps", [])[1:])
    page.add_section("Distributions", "Of the log as ingest left it.")
    page.add_figures("", [*distribution_figures(report), _time_figure(report["times"])])
    _add_summaries(page, report)
    if manifest is not None:
        _add_split(page, manifest)
    if ceiling:
        page.add_section(
            "Best possible ranking", "This log is synthetic: the true probability of each next item is known."
        )
        page.add_table("Test targets ranked by it", ["metric", "value"], [[k, v] for k, v in ceiling.items()])
    page.add_section("Source and settings")
    page.add_table("", ["setting", "value"], _setting_rows(report))
    page.write(path_html)


def distribution_figures(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Plot the lengths of histories and the popularity of items, as any report may show them."""
    return [_length_figure(report["sequence_lengths"]), _popularity_figure(report["item_popularity"])]


def _add_verdicts(
    page: Page, report: dict[str, Any], manifest: dict[str, Any], ceiling: Mapping[str, float] | None
) -> None:
    verdicts = [expected for expected in (report["expected"], manifest.get("expected")) if expected]
    for expected in verdicts:
        page.add_notice(expected["verdict"], "good" if expected["met"] else "bad")
    for warning in report["warnings"]:
        if warning not in [expected["verdict"] for expected in verdicts]:
            page.add_notice(warning, "bad")
    if report["appended"]:
        added = report["appended"]
        page.add_notice(
            f"Appended: {added['num_new']:,} new interactions, {added['num_known']:,} were known; "
            f"{added['num_new_users']:,} users and {added['num_new_items']:,} items are new.",
            "good",
        )
    if ceiling and "ndcg_at_10" in ceiling:
        page.add_notice(f"The best possible ranking of the test targets reaches NDCG@10 {ceiling['ndcg_at_10']:.4f}.")


def _add_quality(page: Page, report: dict[str, Any], manifest: dict[str, Any]) -> None:
    rows: list[list[Any]] = [["rows of the log", report["num_rows"], None]]
    rows += [
        [f"rows without {name} (left out)", count, count / report["num_rows"]]
        for name, count in report["num_missing"].items()
    ]
    total = report["counts"]["num_interactions"]
    rows.append(["interactions after a later one in the log", report["num_out_of_order"], None])
    rows[-1][2] = report["num_out_of_order"] / total
    if manifest:
        for label, name in (
            ("repeats: the user has had the item before", "num_repeats"),
            ("duplicates: at the same time, too", "num_duplicates"),
        ):
            rows.append([label, manifest[name], manifest[name] / manifest["steps"][-1]["num_interactions"]])
    shown = [[label, count, None if share is None else f"{share:.2%}"] for label, count, share in rows]
    page.add_table("", ["what", "count", "share"], shown)
    names, kinds = report["settings"]["columns"], report["columns"]
    order = [column for column in ("user_id", "item_id", "timestamp", "rating") if column in kinds]
    schema = [[column, names[column], kinds[column]] for column in order]
    page.add_table("Schema", ["column", "in the log", "type"], schema)


def _add_steps(page: Page, steps: list[dict[str, Any]]) -> None:
    before = [None, *steps[:-1]]
    rows = [
        [
            step["step"],
            step["num_users"],
            step["num_items"],
            step["num_interactions"],
            None if last is None else _dropped(last["num_interactions"], step["num_interactions"]),
        ]
        for last, step in zip(before, steps, strict=True)
    ]
    page.add_table("What each step left", ["step", "users", "items", "interactions", "interactions dropped"], rows)


def _dropped(before: int, after: int) -> str:
    return f"{1 - after / before:.2%}" if after <= before else f"none, {after - before:,} added"


def _add_summaries(page: Page, report: dict[str, Any]) -> None:
    names = ("min", "median", "mean", "max")
    rows = [
        [label, *(report[key][name] for name in names)]
        for label, key in (
            ("interactions of a user", "sequence_lengths"),
            ("interactions of an item", "item_popularity"),
        )
    ]
    top = report["item_popularity"]["share_of_top_tenth"]
    page.add_table(
        "", ["", *names], rows, note=f"The most popular tenth of the items has {top:.1%} of the interactions."
    )


def _add_split(page: Page, manifest: dict[str, Any]) -> None:
    page.add_section("Split", f"{manifest['split'].replace('_', ' ')}; dataset {manifest['dataset_hash'][:12]}")
    page.add_cards({part: manifest[f"num_{part}"] for part in ("train", "validation", "test")})
    core = f"outside the {manifest['k_core']}-core" if manifest["k_core"] > 1 else ""
    rows = [
        ["users", manifest["num_users"]],
        ["items", manifest["num_items"]],
        ["items without a training event", manifest["num_cold_items"]],
        ["users without a training event", manifest["num_cold_users"]],
        [f"users left out ({core or 'no event of a known item'})", manifest["num_dropped_users"]],
        [f"validation events left out ({core or 'unknown item'})", manifest["num_dropped_validation"]],
        [f"test events left out ({core or 'unknown item'})", manifest["num_dropped_test"]],
    ]
    if manifest["split"] == "temporal":
        rows += [
            ["last training time", _moment(manifest["validation_cut"])],
            ["last validation time", _moment(manifest["test_cut"])],
        ]
    page.add_table("", ["what", "value"], rows)


def _setting_rows(report: dict[str, Any]) -> list[list[Any]]:
    source, settings = report["source"], report["settings"]
    rows = [["source", source["description"]], ["kind", source["kind"]], ["fingerprint", source["fingerprint"]]]
    rows += [[name, source[name]] for name in ("checksum", "licence") if source[name]]
    for name, value in settings.items():
        if name == "columns":  # they stand in the schema
            continue
        nested = value.items() if isinstance(value, dict) else [("", value)]
        rows += [[f"{name} {key}".strip(), "none" if entry is None else str(entry)] for key, entry in nested]
    return rows


def _length_figure(lengths: dict[str, Any]) -> dict[str, Any]:
    bins = lengths["histogram"]
    labels = [f"{b['from']:,}" if b["from"] == b["to"] else f"{b['from']:,} to {b['to']:,}" for b in bins]
    takes_tail = len(bins) > 1 and bins[-1]["to"] - bins[-1]["from"] > bins[0]["to"] - bins[0]["from"]
    trace = {
        "type": "bar",
        "x": [b["from"] for b in bins],
        "y": [b["count"] for b in bins],
        "customdata": labels,
        "marker": {"color": _COLOUR},
        "hovertemplate": "%{customdata} interactions: %{y:,} users<extra></extra>",
    }
    layout = {
        "title": {"text": f"Users by length of history{' (the last bar takes all longer ones)' if takes_tail else ''}"},
        "xaxis": {"title": {"text": "interactions"}},
        "yaxis": {"title": {"text": "users"}, "tickformat": ",d"},
        "bargap": 0.08,
    }
    return {"data": [trace], "layout": layout}


def _popularity_figure(popularity: dict[str, Any]) -> dict[str, Any]:
    points = popularity["by_rank"]
    trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [point["rank"] for point in points],
        "y": [point["count"] for point in points],
        "line": {"color": _COLOUR, "width": 2},
        "marker": {"size": 4},
        "hovertemplate": "item %{x:,}: %{y:,} interactions<extra></extra>",
    }
    layout = {
        "title": {"text": "Items by popularity"},
        "xaxis": {"title": {"text": "rank of the item"}, **_LOG_AXIS},
        "yaxis": {"title": {"text": "interactions"}, **_LOG_AXIS},
    }
    return {"data": [trace], "layout": layout}


def _time_figure(times: list[dict[str, float]]) -> dict[str, Any]:
    labels = [_moment(span["from"], "%Y-%m-%d") for span in times]
    trace = {
        "type": "bar",
        "x": list(range(len(times))),
        "y": [span["count"] for span in times],
        "customdata": labels,
        "marker": {"color": _COLOUR},
        "hovertemplate": "from %{customdata}: %{y:,} interactions<extra></extra>",
    }
    every = max(1, len(times) // 5)
    axis = {"tickvals": list(range(0, len(times), every)), "ticktext": labels[::every], "title": {"text": "time"}}
    layout = {
        "title": {"text": "Interactions over time"},
        "xaxis": axis,
        "yaxis": {"title": {"text": "interactions"}, "tickformat": ",d"},
        "bargap": 0.08,
    }
    return {"data": [trace], "layout": layout}


def _moment(timestamp: float, form: str = "%Y-%m-%d %H:%M:%S UTC") -> str:
    """Write Unix seconds as a date; a number that can hardly be Unix seconds stays a number."""
    if int(timestamp) in _SECONDS_SEEM_UNIX:
        return datetime.fromtimestamp(timestamp, UTC).strftime(form)
    return f"{timestamp:,}"
