"""A server that is killed and started again: the page and the Python client go on."""

import os

import pytest

from omni.client import OmniClient
from support import chromium, free_port, start_server

pytestmark = pytest.mark.e2e


def test_page_and_client_go_on_when_the_server_was_killed(tmp_path):
    port, log = free_port(), tmp_path / "log.txt"
    options = ("--ui", "--data-dir", str(tmp_path / "sessions"))
    process, url = start_server(log, *options, port=port)
    try:
        with (
            chromium("--autoplay-policy=no-user-gesture-required") as browser,
            OmniClient(url) as omni,
        ):
            page = browser.new_context().new_page()
            page.goto(url)
            page.wait_for_selector("#omni-talk:not([disabled])", timeout=30_000)
            ask(page, "Hello! My name is Maria.")
            omni.ask("Hello! My name is Peter.", output_modalities=["text"])
            session = omni.session_id
            with omni.stream("Count from 1 to 100.", output_modalities=["text"]) as answer:
                next(iter(answer))
                os.kill(process.pid, 9)
                process.wait()
                process, _ = start_server(log, *options, port=port)
                with pytest.raises(Exception, match="in the middle of this answer"):
                    answer.read()
            reply = omni.ask("What is my name?", output_modalities=["text"])
            assert "Peter" in reply.text
            assert omni.session_id == session
            page.get_by_text("the conversation goes on").wait_for(timeout=60_000)
            assert page.locator(".omni-user").count() == 1
            assert "Maria" in ask(page, "What is my name?")
            goes_on_after_a_reload_and_in_a_second_window(page)
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()


def goes_on_after_a_reload_and_in_a_second_window(page):
    page.reload()
    page.get_by_text("Hello! My name is Maria.").wait_for(timeout=30_000)
    assert page.locator(".omni-user").count() == 2
    with page.expect_popup() as opened:
        page.evaluate("() => { window.open(location.href) }")
    copy = opened.value  # it has the session's id, as a duplicated tab has
    copy.get_by_text("Hello! My name is Maria.").wait_for(timeout=30_000)
    page.wait_for_selector("#omni[data-state=elsewhere]")
    page.get_by_role("button", name="Go on here").click()
    copy.wait_for_selector("#omni[data-state=elsewhere]")
    assert "Maria" in ask(page, "And what is my name?")


def ask(page, question: str) -> str:
    """Type a question into the page and wait for its answer."""
    answers = page.locator(".omni-assistant.omni-is-over").count()
    page.get_by_label("Type a question").fill(question)
    page.get_by_role("button", name="Send").click()
    page.wait_for_function(
        "count => document.querySelectorAll('.omni-assistant.omni-is-over').length > count",
        arg=answers,
        timeout=60_000,
    )
    return page.locator(".omni-assistant .omni-words").last.inner_text()
