"""The run's report in a real browser: nothing complains, every plot is drawn, in light, dark and on a phone."""

import warnings

import pytest

from glintru_model.html import Page
from tests.browser import NAMES, Browser, find_chromium

pytestmark = pytest.mark.slow

LOOKS = {
    "light": {"width": 1200, "height": 1700},
    "dark": {"width": 1200, "height": 1700, "dark": True},
    "phone": {"width": 390, "height": 844, "phone": True},
}
# A plot is drawn where plotly left an SVG with a mark for every trace.
DRAWN = """[...document.querySelectorAll('.plot')].map(plot => ({
  caption: plot.parentElement.innerText, width: plot.getBoundingClientRect().width,
  traces: (plot.data || []).length, visible: plot.querySelectorAll('svg .trace, svg .point').length,
}))"""


@pytest.fixture(scope="module")
def browser():
    executable = find_chromium()
    if executable is None:
        message = (
            f"THE REPORT WAS NOT LOOKED AT: none of {', '.join(NAMES)} is installed (Debian: apt install chromium)"
        )
        warnings.warn(message, stacklevel=1)
        pytest.skip(message)
    with Browser(executable) as found:
        yield found


@pytest.fixture(scope="module")
def report(run_report_path):
    return run_report_path.as_uri()


@pytest.mark.parametrize("look", LOOKS)
def test_every_plot_is_drawn_and_nothing_complains(browser, report, look, tmp_path):
    browser.look(**LOOKS[look])
    browser.open(report)
    browser.wait_for(
        "document.querySelectorAll('.plot').length === document.querySelectorAll('.plot svg.main-svg').length / 3"
    )
    plots = browser.evaluate(DRAWN)
    assert len(plots) >= 10
    for plot in plots:
        assert plot["traces"] > 0, plot
        assert plot["visible"] > 0, plot
        assert 250 < plot["width"] <= LOOKS[look]["width"], plot
    assert browser.problems == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= LOOKS[look]["width"]  # no sideways scrolling
    picture = tmp_path / f"{look}.png"
    browser.screenshot(picture)
    assert picture.stat().st_size > 20_000


def test_dark_is_dark(browser, report):
    def brightness(**look):
        browser.look(**look)
        browser.open(report)
        colour = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in colour.strip("rgb()").split(","))

    assert brightness(**LOOKS["dark"]) < 150 < 600 < brightness(**LOOKS["light"])


def test_plots_answer_to_the_mouse(browser, report):
    browser.look(**LOOKS["light"])
    browser.open(report)
    browser.wait_for("!!document.querySelector('.plot svg .point')")
    place = browser.evaluate(
        "(() => {const p = document.querySelector('.plot svg .point'); p.scrollIntoView({block: 'center', behavior: "
        "'instant'}); const b = p.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]})()"
    )
    for step in (-3, 0):
        browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=place[0] + step, y=place[1])
    browser.wait_for("!!document.querySelector('.hoverlayer .hovertext')", seconds=10)
    assert "95 %" in browser.evaluate("document.querySelector('.hoverlayer').textContent")


def test_a_broken_page_is_seen_to_be_broken(browser, tmp_path):
    page = Page("Broken")
    page.add_figures("", [{"data": [{"type": "bar", "x": ["a"], "y": [1]}], "layout": {}}])
    path = tmp_path / "broken.html"
    path.write_text(page.render().replace("Plotly.react", "Plotly.reakt"), encoding="utf-8")
    browser.look(**LOOKS["light"])
    browser.open(path.as_uri())
    assert any("reakt" in problem for problem in browser.problems)
    assert [plot["visible"] for plot in browser.evaluate(DRAWN)] == [0]
