import json
from html.parser import HTMLParser

import pytest

from glintru_model.html import Interval, Page, format_number

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Outline(HTMLParser):
    """Checks that tags nest, and collects attributes, text and the JSON of the plots."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.links, self.cells, self.specs, self.scripts = [], [], [], [], 0
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.links += [found[key] for key in ("src", "href", "srcset", "data", "action") if key in found]
        if tag in VOID:
            return
        self.open.append((tag, found))
        self.scripts += tag == "script"
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tags = [tag for tag, _ in self.open]
        if "td" in tags:
            self.cells[-1] += data
        if tags and tags[-1] == "script" and self.open[-1][1].get("type") == "application/json":
            self.specs.append(json.loads(data))


EVIL = "<script>alert(1)</script><!--<script>"


@pytest.fixture
def page():
    page = Page("Report <1>", EVIL)
    for name in ("One", "Two", EVIL):
        page.add_section(name, EVIL)
    page.add_notice(EVIL, "good")
    page.add_cards({EVIL: EVIL, "users": 943})
    page.add_table(EVIL, ["id", EVIL], [[EVIL, 0.5], ["b", None]], note=EVIL)
    page.add_table(EVIL, ["x"], [], collapsed=True)
    figure = {"data": [{"type": "scatter", "x": [1], "y": [2], "name": EVIL}], "layout": {"title": {"text": EVIL}}}
    page.add_figures(EVIL, [figure, figure])
    return page


def test_text_of_the_log_is_never_markup(page):
    text = page.render()
    outline = Outline(text)
    assert EVIL not in text
    assert "&lt;script&gt;alert(1)" in text
    assert outline.cells[0] == EVIL
    assert [spec["data"][0]["name"] for spec in outline.specs] == [EVIL, EVIL]
    # plotly.js, the page's own script, and two JSON blocks: nothing more.
    assert outline.scripts == 4


def test_page_needs_no_network_and_carries_plotly_once(page):
    text = page.render()
    assert [link for link in Outline(text).links if not link.startswith("#")] == []
    assert text.count("* plotly.js v") == 1
    assert "default-src 'none'" in text
    assert "@import" not in text.partition("</style>")[0]
    assert "url(" not in text.partition("</style>")[0]


def test_page_without_plots_carries_no_plotly():
    page = Page("Small")
    page.add_text("Nothing to see.")
    assert len(page.render()) < 20_000


def test_sections_are_linked_from_the_top(page):
    text = page.render()
    anchors = [link for link in Outline(text).links if link.startswith("#")]
    assert len(anchors) == 3
    assert all(f'id="{anchor[1:]}"' in text for anchor in anchors)


def test_caller_may_pass_markup_of_its_own():
    from markupsafe import Markup

    page = Page("Markup")
    page.add_text(Markup("<em>{}</em>").format("<b>"))
    assert "<em>&lt;b&gt;</em>" in page.render()


def test_figure_gives_its_title_and_template_to_the_page():
    import plotly.graph_objects as go

    figure = go.Figure(go.Bar(x=["a"], y=[1], marker_color="var(--series-1)"))
    figure.update_layout(title="Counts", width=900, height=200)
    page = Page("Plot")
    page.add_figures("", [figure])
    text = page.render()
    (spec,) = Outline(text).specs
    assert spec == {
        "data": [{"type": "bar", "x": ["a"], "y": [1], "marker": {"color": "var(--series-1)"}}],
        "layout": {},
    }
    assert "<figcaption>Counts</figcaption>" in text
    assert "height: 200px" in text


def test_columns_are_formatted_as_one():
    page = Page("Numbers")
    page.add_table(
        "",
        ["name", "count", "share", "rate", "interval", "seen"],
        [
            ["a", 1234567, 0.095812, 3.2e-4, Interval(0.5, 0.4, 0.6, best=True), True],
            ["b", 7, 0.1, 0.01, Interval(-0.25, -0.3, 0.1), None],
        ],
    )
    text = page.render()
    cells = Outline(text).cells
    assert cells[:6] == ["a", "1,234,567", "0.0958", "0.00032", "0.5000 0.4000 \N{EN DASH} 0.6000", "yes"]
    minus = "\N{MINUS SIGN}"
    assert cells[6:] == [
        "b", "7", "0.1000", "0.01", f"{minus}0.2500 {minus}0.3000 to 0.1000", "\N{EN DASH}"
    ]  # fmt: skip
    assert "<strong>0.5000</strong>" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234, "1,234"),
        (0.0958, "0.0958"),
        (2.5, "2.500"),
        (12.345, "12.35"),
        (123.45, "123.5"),
        (98765.4, "98,765"),
        (3.2e-5, "3.2e-05"),
        (-1.5, "\N{MINUS SIGN}1.500"),
        (float("nan"), "\N{EN DASH}"),
        (float("inf"), "∞"),
    ],
)
def test_numbers_are_written_for_a_person(value, text):
    assert format_number(value) == text


def test_numpy_numbers_are_numbers():
    import numpy as np

    assert format_number(np.int64(12345)) == "12,345"
    assert format_number(np.float32(0.25)) == "0.2500"


def test_writing_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "report.html"
    for title in ("First", "Second"):
        Page(title).write(path)
    assert "<h1>Second</h1>" in path.read_text(encoding="utf-8")
    assert list(path.parent.iterdir()) == [path]
