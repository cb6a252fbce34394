"""Dashboard and report in a real browser: figures are drawn, pages follow a growing run, and markup in names does nothing."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import pytest

from tests.browser import browsing, chromium, is_wanted, served
from tests.conftest import SMALL
from tests.test_dashboard import MARKUP, grow, plant, revive
from vmaptune.dashboard.app import make_app
from vmaptune.loop import tune
from vmaptune.report.figures import FIGURES
from vmaptune.report.writing import write_report
from vmaptune.store.folder import RunFolder

pytestmark = pytest.mark.skipif(chromium() is None and not is_wanted(), reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def browser():
    with browsing() as browser:
        yield browser


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three runs: one good, one whose names hold markup, and one that goes on."""
    root = tmp_path_factory.mktemp("runs")
    tune(SMALL, out=root / "first")
    plant(root / "first", root / MARKUP)
    shutil.copytree(root / "first", root / "live")
    revive(RunFolder(root / "live"))
    return root


@pytest.fixture(scope="module")
def place(root):
    with served(make_app(root)) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def visit(browser, address, **how):
    """Opens a page; afterwards, nothing may have gone wrong in it, and nothing may have been asked of another server."""
    troubles = []
    home = address if address.startswith("file:") else "/".join(address.split("/")[:3]) + "/"
    context = browser.new_context(**how)
    context.set_default_timeout(90_000)  # a busy machine is slow, not wrong
    page = context.new_page()
    page.on("console", lambda told: troubles.append(told.text) if told.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("dialog", lambda dialog: troubles.append("a dialog: planted markup ran"))
    page.on("request", lambda asked: None if asked.url.startswith((home, "data:", "blob:")) else troubles.append(asked.url))
    try:
        page.goto(address)
        yield page
        assert troubles == []
    finally:
        context.close()


def drawn(page):
    """Scrolls through a run's page until each figure is drawn or says that there is nothing to draw; names of those drawn."""
    for name in [s.get_attribute("data-name") for s in page.query_selector_all("section[data-name]")]:
        page.locator(f"section[data-name={name}]").scroll_into_view_if_needed()
        page.wait_for_selector(f"section[data-name={name}][data-state]")
    return [s.get_attribute("data-name") for s in page.query_selector_all("section[data-name][data-state=drawn]")]


def test_list_shows_runs_and_searches_them(browser, place):
    with visit(browser, place) as page:
        page.wait_for_selector("#runs tbody tr")
        rows = page.locator("#runs tbody tr")
        assert rows.count() == 3
        assert page.locator("#count").text_content() == "3 runs, 1 running"
        page.fill("#search", "digits finished")
        assert rows.locator("th a").all_text_contents() == ["first"]
        page.fill("#search", "")
        page.locator("#runs th[data-key=run] button").press("Enter")
        names = rows.locator("th a").all_text_contents()
        assert names == sorted(names)
        assert page.get_attribute("#runs th[data-key=run]", "aria-sort") == "ascending"
        page.get_by_label("compare first").check()
        assert page.get_attribute("#compare", "href") is None
        page.get_by_label("compare live").check()
        assert page.get_attribute("#compare", "href") == "/compare?run=first&run=live"
        page.get_by_role("link", name="first").click()
        page.wait_for_url("**/run?run=first")


def test_run_page_draws_figures_and_sorts_members(browser, place):
    with visit(browser, f"{place}/run?run=first") as page:
        assert set(drawn(page)) <= set(FIGURES)
        assert len(drawn(page)) >= 1
        column = page.locator("#members tbody tr td:nth-child(6)")
        fitness = [float(text) for text in column.all_text_contents()]
        assert len(fitness) == 8
        assert fitness == sorted(fitness, reverse=True)
        with page.expect_response(lambda answer: "order=ascending" in answer.url):
            page.get_by_role("button", name="fitness").click()
        page.wait_for_selector("#members th[aria-sort=ascending]")
        assert [float(text) for text in column.all_text_contents()] == sorted(fitness)
        with page.expect_download() as download:
            page.get_by_role("link", name="best/schedule.csv").click()
        assert download.value.suggested_filename == "first-schedule.csv"


def test_pages_follow_a_run_and_keep_the_zoom(browser, place, root):
    with visit(browser, f"{place}/run?run=live") as page:
        page.wait_for_selector("section[data-state=drawn]")
        page.wait_for_selector("#cards >> text=4 of 4")
        plot = "document.querySelector('.plot')"
        page.evaluate(f"Plotly.relayout({plot}, {{'xaxis.range': [1, 3]}})")
        before = page.evaluate(f"JSON.stringify({plot}.data)")
        grow(RunFolder(root / "live"))
        page.wait_for_selector("#cards >> text=5 of 4")
        page.wait_for_function(f"before => JSON.stringify({plot}.data) !== before", arg=before)
        assert page.evaluate(f"{plot}.layout.xaxis.range") == [1, 3]
        assert page.locator("#members-about").text_content().startswith("Generation 5:")


def test_planted_markup_does_nothing(browser, place):
    with visit(browser, place) as page:
        page.wait_for_selector("#runs tbody tr")
        assert page.locator("#runs tbody").get_by_text(MARKUP, exact=True).count() == 3  # its name, its task and its metric
        assert page.locator("img").count() == 0
        page.get_by_label(f"compare {MARKUP}").check()
        page.get_by_role("link", name=MARKUP).click()
        page.wait_for_selector("h1")
        assert page.locator("h1").text_content() == MARKUP
        drawn(page)
        assert page.locator("img").count() == 0
        assert page.locator("#members").get_by_text(f"schedule.{MARKUP}", exact=True).count() == 1


def test_report_is_one_file_in_which_markup_does_nothing(browser, root, tmp_path):
    write_report([root / MARKUP], out=tmp_path / "report.html")
    with visit(browser, (tmp_path / "report.html").as_uri()) as page:
        page.wait_for_selector("html[data-ready=yes]")
        assert page.locator(".plot .main-svg").count() >= 1
        assert page.locator("h1").text_content() == MARKUP
        assert page.locator("img").count() == 0


def test_dark_and_light(browser, place):
    def ground(page):
        return sum(
            int(part) for part in page.evaluate("getComputedStyle(document.documentElement).backgroundColor")[4:-1].split(",")
        )

    with visit(browser, f"{place}/run?run=first", color_scheme="dark") as page:
        assert ground(page) < 150
        page.wait_for_selector("section[data-state=drawn]")
        ink = "document.querySelector('.plot').layout.font.color"
        dark = page.evaluate(ink)
        page.get_by_role("button", name="Light / dark").click()
        assert ground(page) > 600
        page.wait_for_function(f"before => {ink} !== before", arg=dark)
        page.reload()
        assert ground(page) > 600
    with visit(browser, place, color_scheme="light") as page:
        assert ground(page) > 600


def test_narrow_pages_do_not_scroll_sideways(browser, place):
    for path in ("", "/run?run=first", "/compare?run=first&run=live"):
        with visit(browser, f"{place}{path}", viewport={"width": 400, "height": 800}) as page:
            page.wait_for_load_state("networkidle")
            assert page.evaluate("document.documentElement.scrollWidth") <= 400
