"""The page in headless Chromium: nothing is loaded, nothing fails, axe-core finds nothing, and every control works.

Needs Chromium and the packages of the extra ``browser``; see CONTRIBUTING.md.
"""

import csv
import io
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import report_jobs as jobs

from pxframe.report.write import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PACKAGES = [name for name in ("playwright", "axe_playwright_python") if find_spec(name) is None]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (see CONTRIBUTING.md)"),
    pytest.mark.skipif(bool(PACKAGES), reason=f"not installed: {', '.join(PACKAGES)} (see CONTRIBUTING.md)"),
]
VIEWS = [(scheme, width) for scheme in ("light", "dark") for width in (1280, 390)]
#: Takes the place of the clipboard, which a headless browser may not have.
CLIPBOARD = (
    "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (text) => { window.copied = text }}})"
)
NO_CLIPBOARD = "Object.defineProperty(navigator, 'clipboard', {value: undefined}); document.execCommand = () => false"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A page with everything that a page can have."""
    root = tmp_path_factory.mktemp("browser") / "work"
    rows = [*jobs.several(), *jobs.several("scenes")]
    rows += [
        jobs.row(None, "snip", task="scenes", collapsed="no path", seconds=0.0),
        jobs.row(12.0, 'a, "quoted" method of a very long name that goes on', zero_shot={"mask": 3.0}),
        jobs.row(-3.5, "below", diverged=2),
    ]
    for row in rows:
        if row["sparsity"] and row["value"] and row["value"] > 20:
            jobs.ticket(root, row["variant"], row["seed"], **{f"block{n}": (row["seed"] + n) % 5 for n in range(6)})
    jobs.measured(root, rows)
    return write_report(jobs.write(root, rows, seeds=[0, 1, 2, 3]))


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        root = hasattr(os, "geteuid") and os.geteuid() == 0  # Chromium has no sandbox for it
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] if root else [])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser, report):
    """``open_page(**options)`` opens the report in a window of its own; no test may leave a complaint behind."""
    contexts, complaints, requests = [], [], []

    def opened(script="", **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        if script:
            context.add_init_script(script)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(report.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url for url in requests if not url.startswith("data:")} == {report.as_uri()}


@pytest.mark.parametrize(("scheme", "width"), VIEWS)
def test_axe_finds_nothing_and_nothing_sticks_out(open_page, scheme, width):
    import axe_playwright_python

    axe = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    page = open_page(color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True)
    for part in page.query_selector_all("summary"):
        part.click()
    page.evaluate(axe)
    found = page.evaluate("axe.run()")
    assert [(v["id"], [node["html"] for node in v["nodes"]]) for v in found["violations"]] == []
    assert len(found["passes"]) > 20
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_light_and_dark_differ_and_follow_the_reader(open_page):
    colours = {}
    for scheme in ("light", "dark"):
        page = open_page(color_scheme=scheme)
        style = "getComputedStyle(document.body)"
        line = "getComputedStyle(document.querySelector('.plots svg [id$=legend_1] path')).stroke"
        colours[scheme] = [
            page.evaluate(f"{style}.backgroundColor"),
            page.evaluate(f"{style}.color"),
            page.evaluate(line),
        ]
    assert all(a != b for a, b in zip(*colours.values(), strict=True)), colours


def column(page, number):
    return page.eval_on_selector_all(
        f"#results tbody tr:not([hidden]) > :nth-child({number})", "cells => cells.map(cell => cell.textContent.trim())"
    )


def test_the_table_sorts_by_number_and_by_name_and_says_so(open_page):
    page = open_page()
    before = column(page, 4)
    page.get_by_role("button", name="Mean").click()
    numbers = [float(v.replace("−", "-")) for v in column(page, 4) if v]
    assert numbers == sorted(numbers)
    assert numbers[0] == -3.5
    assert column(page, 4)[-1] == ""  # a collapsed ticket has no value, and is last either way
    head = page.locator("#results").get_by_role("columnheader", name="Mean", exact=True)
    assert head.get_attribute("aria-sort") == "ascending"
    assert page.locator("#status").text_content() == "Sorted by Mean, ascending."
    page.get_by_role("button", name="Mean").click()
    assert [float(v.replace("−", "-")) for v in column(page, 4) if v] == numbers[::-1]
    assert column(page, 4)[-1] == ""
    assert head.get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="Method").click()
    assert column(page, 2) == sorted(column(page, 2))
    assert head.get_attribute("aria-sort") is None
    assert sorted(before) == sorted(column(page, 4))


def test_the_table_filters_and_what_is_shown_is_copied(open_page):
    page = open_page(CLIPBOARD)
    page.get_by_label("Filter rows").fill("SCENES px")
    assert set(column(page, 1)) == {"scenes"}
    assert set(column(page, 2)) == {"px"}
    assert page.locator("#status").text_content() == "2 of 13 rows shown."
    page.get_by_role("button", name="Copy as CSV").click()
    page.wait_for_function("document.getElementById('status').textContent.startsWith('Copied')")
    assert page.locator("#status").text_content() == "Copied 2 rows as CSV."
    assert page.locator("#status").get_attribute("aria-live") == "polite"
    lines = list(csv.DictReader(io.StringIO(page.evaluate("window.copied"))))
    assert [(line["Task"], line["Method"], line["Sparsity, %"], line["Mean"]) for line in lines] == [
        ("scenes", "px", "80", "91.33"),
        ("scenes", "px", "90", "81"),
    ]
    page.get_by_label("Filter rows").fill("")
    page.get_by_role("button", name="Copy as CSV").click()
    page.wait_for_function("document.getElementById('status').textContent.startsWith('Copied 13')")
    lines = list(csv.DictReader(io.StringIO(page.evaluate("window.copied"))))
    assert 'a, "quoted" method of a very long name that goes on' in [line["Method"] for line in lines]
    assert "-3.5" in [line["Mean"] for line in lines]


def test_where_copying_is_not_allowed_the_page_says_what_to_do(open_page):
    page = open_page(NO_CLIPBOARD)
    page.get_by_role("button", name="Copy as CSV").click()
    page.wait_for_function("document.getElementById('status').textContent.includes('results.csv')")


def test_it_works_from_the_keyboard(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the answer"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0  # and can be seen
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('th') !== null"):
            break
    page.keyboard.press("Enter")
    assert (
        page.locator("#results").get_by_role("columnheader", name="Task", exact=True).get_attribute("aria-sort")
        == "ascending"
    )
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_without_javascript_it_lacks_the_controls_alone(open_page):
    page = open_page(java_script_enabled=False)
    assert page.locator("#results tbody tr").count() == 13
    assert page.locator("#results").is_visible()
    assert not page.locator("#controls").is_visible()
    assert page.locator(".plots svg").first.is_visible()


def test_the_table_keeps_its_head_in_view(open_page):
    page = open_page(viewport={"width": 1280, "height": 500})
    page.evaluate("document.querySelector('#results').closest('.scroll').style.maxHeight = '200px'")
    page.evaluate("document.querySelector('#results').closest('.scroll').scrollTop = 150")
    top = "getBoundingClientRect().top"
    head = page.evaluate(f"document.querySelector('#results th').{top}")
    assert head == pytest.approx(page.evaluate(f"document.querySelector('#results').closest('.scroll').{top}"), abs=2)


def test_on_paper_everything_is_open_and_on_white(open_page, tmp_path):
    page = open_page(color_scheme="dark")
    paper = page.pdf(path=tmp_path / "page.pdf", format="A4")
    assert paper.startswith(b"%PDF")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("Array.from(document.querySelectorAll('details'), part => part.open).every(Boolean)")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert not page.locator("#controls").is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).maxHeight") == "none"
