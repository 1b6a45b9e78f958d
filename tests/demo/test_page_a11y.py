"""The page is for everyone: axe, the keyboard, screen readers, small screens, two languages."""

import os
import re
from pathlib import Path

import pytest
from scripted import QUESTION, ScriptedServer, serving, wait_for_state

from demo.app import STATIC
from support import chromium, free_port

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
SCAN = """async () => {
  const rules = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
  const { violations } = await axe.run(document, { runOnly: rules });
  return violations
    .filter(({ impact }) => ['serious', 'critical'].includes(impact))
    .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 160)).join(' | ')}`);
}"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def server():
    scripted = ScriptedServer()
    with serving(scripted.app, free_port()) as url:
        scripted.url = url
        yield scripted


@pytest.fixture
def open_page(browser, server):
    contexts = []

    def open_page(width=1280, height=800, **options):
        context = browser.new_context(
            viewport={"width": width, "height": height}, reduced_motion="reduce", **options
        )
        contexts.append(context)
        page = context.new_page()
        page.goto(server.url)
        wait_for_state(page, "ready")
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def axe():
    if not AXE.is_file():
        refuse = pytest.fail if os.environ.get("CI") else pytest.skip
        refuse("axe-core is not installed: npm ci --prefix tests/demo")
    return AXE.read_text("utf-8")


def converse(page) -> None:
    page.get_by_label("Type a question").fill(QUESTION)
    page.get_by_label("Type a question").press("Enter")
    page.locator(".omni-timings summary").click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844), (320, 640), (844, 390)])
def test_axe_finds_nothing_serious(open_page, axe, scheme, width, height):
    page = open_page(width, height, color_scheme=scheme)
    page.evaluate(axe)
    assert page.evaluate(SCAN) == [], "empty"
    converse(page)
    assert page.evaluate(SCAN) == [], "with a conversation"
    for name in ("Settings", "Conversations", "Copy or save"):
        page.get_by_role("button", name=name, exact=True).click()
        page.get_by_role("dialog", name=name).wait_for()
        assert page.evaluate(SCAN) == [], name
        page.keyboard.press("Escape")


@pytest.mark.parametrize(("width", "height"), [(320, 640), (390, 844), (844, 390), (1280, 800)])
def test_nothing_is_cut_off_and_every_target_is_big_enough(open_page, width, height):
    page = open_page(width, height, has_touch=True)
    converse(page)
    for sheet in (None, "settings", "history", "save"):
        if sheet:
            page.locator(f"#omni-open-{sheet}").click()
        wide, window = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= window
        place = f"#omni-{sheet}" if sheet else "#omni"
        targets = f"{place} :is(button, select, textarea, summary, input):visible"
        for target in page.locator(targets).all():
            box = target.bounding_box()
            html = target.evaluate("element => element.outerHTML.slice(0, 120)")
            assert min(box["height"], box["width"]) >= 44, html
            assert 0 <= box["x"] <= width - box["width"], html
        if sheet:
            page.keyboard.press("Escape")


def test_the_keyboard_alone_reaches_everything_and_shows_where_it_is(open_page, server):
    page = open_page()
    reached = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        name, outlined = page.evaluate(
            """() => {
              const element = document.activeElement;
              const shows = (one) => one && getComputedStyle(one).outlineStyle !== 'none';
              const ring = shows(element) || Boolean(element.closest('.omni-composer'));
              return [element.id, ring];
            }"""
        )
        reached.add(name)
        assert outlined or not name.startswith("omni-"), name
    above = {"omni-new", "omni-open-save", "omni-open-history", "omni-open-settings", "omni-log"}
    assert above | {"omni-show", "omni-talk", "omni-attach", "omni-text"} <= reached

    page.locator("#omni-open-settings").focus()
    page.keyboard.press("Enter")
    page.get_by_role("dialog", name="Settings").wait_for()
    for _ in range(40):  # the rest of the page waits behind the sheet
        page.keyboard.press("Tab")
        inside = "document.activeElement.matches('body, dialog, dialog *')"
        assert page.evaluate(inside)
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "omni-open-settings"

    page.locator("#omni-text").focus()
    page.keyboard.type(QUESTION)
    page.keyboard.press("Enter")
    wait_for_state(page, "speaking")
    page.keyboard.press("Escape")
    wait_for_state(page, "ready")


def test_what_is_spoken_is_not_read_out_again_but_what_is_only_written_is(open_page):
    page = open_page()
    converse(page)
    assert (
        page.locator("[aria-live] #omni-log, #omni-log[aria-live], #omni-log[role=log]").count()
        == 0
    )
    assert page.locator("#omni-announce").text_content() == "Ready"
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Speak answers").uncheck()
    page.keyboard.press("Escape")
    page.get_by_label("Type a question").fill("Again")
    page.get_by_label("Type a question").press("Enter")
    page.wait_for_function("document.querySelector('#omni-announce').textContent.includes('Paris')")


def test_the_page_speaks_chinese_to_those_who_do_and_on_request(open_page):
    page = open_page(locale="zh-CN")
    assert page.locator("html").get_attribute("lang") == "zh-Hans"
    assert page.get_by_role("button", name="说话").is_enabled()
    page.get_by_role("button", name="设置").click()
    page.locator("#omni-devices select").evaluate_all("all => all.forEach((one) => one.remove())")
    words = page.locator("#omni").inner_text()
    page.get_by_label("界面语言").select_option("en")
    assert page.get_by_role("dialog", name="Settings").is_visible()
    assert page.get_by_label("Type a question").count() == 1
    assert set(re.findall(r"[A-Za-z]{4,}", words)) <= {"Omni", "English"}
    page.reload()
    wait_for_state(page, "ready")
    assert page.locator("html").get_attribute("lang") == "en"


def test_the_theme_can_be_chosen_against_the_system(open_page):
    page = open_page(color_scheme="light")
    paper = "getComputedStyle(document.querySelector('#omni')).backgroundColor"
    light = page.evaluate(paper)
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Theme").select_option("dark")
    dark = page.evaluate(paper)
    assert dark != light
    page.reload()
    wait_for_state(page, "ready")
    assert page.evaluate(paper) == dark


def test_every_text_of_the_page_is_there_in_both_languages():
    table = (STATIC / "i18n.js").read_text("utf-8").split("export const LANGUAGES")[0]
    keys = set(re.findall(r"^  (\w+): \[", table, re.M))
    assert len(keys) > 100
    scripts = {file: file.read_text("utf-8") for file in STATIC.glob("*.js")}
    used = set(re.findall(r'data-t(?:-\w+)?="(\w+)"', (STATIC / "page.html").read_text("utf-8")))
    for text in scripts.values():
        used |= set(re.findall(r'\bt\("(\w+)"', text))
    assert used <= keys, used - keys
