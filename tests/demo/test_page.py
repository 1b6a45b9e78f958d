"""The page: what HTTP serves, and how it looks and answers in a real browser."""

import os
import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from scripted import (
    ANSWER,
    ANSWER_SECONDS,
    QUESTION,
    ScriptedServer,
    contrast,
    entries,
    wait_for_state,
)

from demo.app import STATIC, mount


@pytest.fixture(scope="module")
def http():
    with TestClient(ScriptedServer().app) as client:
        yield client


def test_the_page_loads_and_brings_its_own_script_and_style(http):
    page = http.get("/")
    assert page.status_code == 200
    assert "/static/omni/omni.js" in page.text
    assert "/static/omni/omni.css" in page.text


@pytest.mark.parametrize("name", sorted(path.name for path in STATIC.iterdir()))
def test_every_file_is_served_with_its_type_and_checked_again_each_time(http, name):
    answer = http.get(f"/static/omni/{name}")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-cache"
    expected = {".js": "application/javascript", ".css": "text/css", ".html": "text/html"}
    assert answer.headers["content-type"].startswith(expected[Path(name).suffix])


def test_the_page_names_no_other_host_to_load_from(http):
    loads = re.compile(
        r"""(?:\b(?:src|href)=|url\(|@import|from)\s*["']?(?:https?:)?//([^/"')\s]+)"""
    )
    for path in ("/", *(f"/static/omni/{file.name}" for file in STATIC.iterdir()), "/theme.css"):
        assert loads.findall(http.get(path).text) == [], path


def test_routes_made_before_the_page_stay_reachable(http):
    assert http.get("/health").json()["status"] == "ready"


def test_the_page_can_be_mounted_under_another_path():
    app = FastAPI()
    mount(app, "/talk")
    with TestClient(app) as client:
        assert "/static/omni/omni.js" in client.get("/talk/").text


def test_nothing_is_requested_from_another_host(page):
    page.wait_for_load_state("networkidle")
    assert page.hosts <= {"localhost", None}


def test_a_typed_question_is_shown_answered_aloud_and_timed(page, fake):
    box = page.get_by_label("Type a question")
    assert page.get_by_role("button", name="Send").is_disabled()
    box.fill(QUESTION)
    box.press("Enter")
    wait_for_state(page, "speaking")
    assert box.input_value() == ""
    item = fake.until("conversation.item.create")["item"]
    assert item["content"] == [{"type": "input_text", "text": QUESTION}]
    answer = entries(page, "assistant").last
    assert answer.locator(".omni-words").inner_text() == "".join(ANSWER)
    answer.get_by_text("answered after").click()
    assert "0.64 s" in answer.locator("[data-stage=first_audio]").inner_text()
    assert "0.48 s" in answer.locator("[data-stage=first_token]").inner_text()
    wait_for_state(page, "ready", seconds=ANSWER_SECONDS + 5)


def test_answers_can_be_had_in_writing_only(page, fake):
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Speak answers").uncheck()
    session = fake.until("session.update", count=2)["session"]
    assert session == {"type": "realtime", "output_modalities": ["text"]}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_its_window_and_can_be_read_in_light_and_dark(browser, fake, scheme, width):
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 740}, permissions=["microphone"]
    )
    page = context.new_page()
    page.goto(fake.url)
    wait_for_state(page, "ready")
    page.get_by_label("Type a question").fill(QUESTION)
    page.get_by_label("Type a question").press("Enter")
    page.locator(".omni-timings").wait_for()
    sizes = "[document.documentElement.scrollWidth, innerWidth]"
    inner, window = page.evaluate(sizes)
    assert inner <= window
    for selector in (".omni-user .omni-words", ".omni-assistant .omni-words", "#omni-state"):
        assert contrast(page, selector) >= 4.5, selector
    if where := os.environ.get("OMNI_SCREENSHOTS"):
        page.screenshot(path=Path(where) / f"page-{scheme}-{width}.png")
    context.close()
