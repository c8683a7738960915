"""The short table at the end of a run, and what to type next."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glintru_model.evaluation.wording import metric_title, title_of

MAIN_METRICS = ("ndcg_at_10", "recall_at_10")


def format_summary(summary: dict[str, Any], run_dir: Path) -> str:
    """Lay out both models' test metrics with intervals, the registered versions and the next commands.

    Args:
        summary: what `compare_and_register` wrote.
        run_dir: the run's folder.
    """
    rows = [["test, full ranking", *(metric_title(m) for m in MAIN_METRICS), "registered"]]
    for name, model in summary["models"].items():
        version = model["version"]
        cells = [_interval(model["metrics"][metric]) for metric in MAIN_METRICS]
        rows.append([title_of(name), *cells, f"{version['name']} v{version['version']} ({version['alias']})"])
    rows.append(["popularity", *(_interval(summary["baselines"]["popularity"][m]) for m in MAIN_METRICS), "-"])
    if summary["ceiling"]:
        rows.append(["best possible", *(f"{summary['ceiling'][m]:.4f}" for m in MAIN_METRICS), "-"])
    seen = "items a user has seen are no candidates" if summary["filter_seen"] else "seen items stay candidates"
    lines = [
        "",
        *text_table(rows),
        "",
        f"{summary['num_cases']:,} test targets over {summary['num_items']:,} items; {seen}; 95 % bootstrap intervals.",
        *summary["verdicts"],
        "",
        f"report        {run_dir / 'report.html'}",
        f"log           {run_dir / 'pipeline.log'}",
        "compare runs  make mlflow-ui",
        "your own log  make pipeline-run DATA=path/to/log.parquet",
    ]
    return "\n".join(lines)


def _interval(metric: dict[str, float]) -> str:
    return f"{metric['value']:.4f} [{metric['low']:.4f}, {metric['high']:.4f}]"


def text_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out rows of equally many cells, the header first, as lines for a terminal."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]
