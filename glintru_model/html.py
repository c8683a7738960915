"""The page that every report is written on: one HTML file, no network, light and dark, readable on a phone.

Figures name their colours by role (`var(--series-1)`, `var(--muted)`; see `page_style.html.j2`), so the browser can
repaint them when it changes between light and dark.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from glintru_model.files import write_text

_DASH = "\N{EN DASH}"
_DEFAULT_PLOT_HEIGHT = 340
# What would end a script element or start a comment in it, as JSON escapes.
_SCRIPT_ESCAPES = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"})


@dataclass(frozen=True)
class Interval:
    """A table cell: an estimate and its confidence interval; `best` sets it in bold."""

    value: float
    low: float
    high: float
    best: bool = False


class Page:
    """A report, built from top to bottom and written once.

    Every text, cell, label and caption is escaped: ids and titles come from the user's log. A caller that has safe
    HTML of its own passes it as `markupsafe.Markup`.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title, self.subtitle = title, subtitle
        self._blocks: list[dict[str, Any]] = []

    def add_section(self, title: str, text: str = "") -> None:
        """Begin a part of the report; the parts are listed under the title."""
        self._blocks.append({"kind": "section", "title": title, "id": f"section-{len(self._blocks)}"})
        if text:
            self.add_text(text)

    def add_text(self, text: str) -> None:
        """Add a paragraph."""
        self._blocks.append({"kind": "text", "text": text})

    def add_notice(self, text: str, tone: Literal["good", "bad", "neutral"] = "neutral") -> None:
        """Add one sentence that must not be overlooked."""
        self._blocks.append({"kind": "notice", "text": text, "tone": tone})

    def add_cards(self, cards: Mapping[str, Any]) -> None:
        """Add a row of figures, each under its label."""
        shown = [(label, _show(value, _decimals([value]))) for label, value in cards.items()]
        self._blocks.append({"kind": "cards", "cards": shown})

    def add_table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        *,
        note: str = "",
        collapsed: bool = False,
    ) -> None:
        """Add a table; it scrolls sideways where the screen is too narrow.

        Args:
            title: stands above the table; may be empty.
            columns: the header.
            rows: cells of any type; numbers are formatted per column and set right, None becomes a dash, an
                `Interval` shows its bounds.
            note: small print below.
            collapsed: show the title alone until it is clicked.
        """
        by_column = [[row[index] for row in rows] for index in range(len(columns))]
        places = [_decimals(values) for values in by_column]
        numeric = [bool(values) and all(_is_numeric(value) for value in values) for values in by_column]
        cells = [[_show(value, places[index]) for index, value in enumerate(row)] for row in rows]
        table = {"columns": list(zip(columns, numeric, strict=True)), "rows": cells}
        self._blocks.append({"kind": "table", "title": title, "note": note, "collapsed": collapsed, **table})

    def add_figures(self, title: str, figures: Sequence[Any], *, note: str = "") -> None:
        """Add plots side by side (below each other on a narrow screen).

        Args:
            title: stands above the plots; may be empty.
            figures: plotly figures, or dicts with `data` and `layout`. Each figure's own title becomes its caption;
                its width and template give way to the page's.
            note: small print below.
        """
        self._blocks.append({"kind": "figures", "title": title, "note": note, "figures": [_plot(f) for f in figures]})

    def render(self) -> str:
        """Return the page as HTML."""
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        has_plots = any(block["kind"] == "figures" and block["figures"] for block in self._blocks)
        return environment.get_template("page.html.j2").render(
            title=self.title, subtitle=self.subtitle, blocks=self._blocks, plotly_js=_plotly_js() if has_plots else None
        )

    def write(self, path: Path) -> None:
        """Write the page, whole or not at all.

        Raises:
            StorageError: the disk refused.
        """
        write_text(path, self.render())


def format_number(value: float) -> str:
    """Write one number for a person: `1,234`, `0.0958`, `12.3`, `3.2e-05`."""
    return _show(value, _decimals([value]))["text"]


def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _plot(figure: Any) -> dict[str, Any]:
    from plotly.io import to_json

    spec = json.loads(to_json(figure, validate=False))
    layout = spec.get("layout") or {}
    caption = layout.pop("title", None) or ""
    if isinstance(caption, dict):
        caption = caption.get("text") or ""
    for key in ("template", "width"):
        layout.pop(key, None)
    height = layout.pop("height", None) or _DEFAULT_PLOT_HEIGHT
    text = json.dumps({"data": spec["data"], "layout": layout}, ensure_ascii=False).translate(_SCRIPT_ESCAPES)
    return {"caption": caption, "height": height, "spec": text}


def _is_number(value: Any) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, str | bool)


def _is_numeric(value: Any) -> bool:
    return value is None or isinstance(value, Interval) or _is_number(value)


def _decimals(values: Sequence[Any]) -> int | None:
    """Decimals that suit every number of a column; None where each number is better written by itself."""
    numbers = [value.value if isinstance(value, Interval) else value for value in values if _is_numeric(value)]
    sizes = [abs(float(n)) for n in numbers if n is not None and math.isfinite(float(n)) and float(n) != 0]
    if not sizes:
        return 4
    if min(sizes) < 1e-3 or max(sizes) / min(sizes) > 1e4:
        return None if len(sizes) > 1 or min(sizes) < 1e-3 else 0
    return next(places for limit, places in ((1, 4), (10, 3), (100, 2), (1000, 1), (math.inf, 0)) if max(sizes) < limit)


def _show(value: Any, decimals: int | None) -> dict[str, str]:
    if value is None:
        return {"text": _DASH}
    if isinstance(value, Interval):
        low, high = _number(value.low, decimals), _number(value.high, decimals)
        cell = {"text": _number(value.value, decimals), "interval": f"{low} {'to' if value.low < 0 else _DASH} {high}"}
        return {**cell, "best": "yes"} if value.best else cell
    if isinstance(value, bool):
        return {"text": "yes" if value else "no"}
    if _is_number(value):
        return {"text": _number(value, decimals)}
    return {"text": value if hasattr(value, "__html__") else str(value)}


def _number(value: Any, decimals: int | None) -> str:
    number = float(value)
    if math.isnan(number):
        return _DASH
    if math.isinf(number):
        return "∞" if number > 0 else "-∞"
    if hasattr(value, "__index__"):
        return f"{int(value):,}"
    if decimals is None and abs(number) >= 1:
        decimals = _decimals([number])
    text = f"{number:.3g}" if decimals is None else f"{number:,.{decimals}f}"
    return text.replace("-", "\N{MINUS SIGN}", 1) if number < 0 else text
