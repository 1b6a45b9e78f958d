"""The page in a browser before a scripted server."""

from urllib.parse import urlsplit

import pytest
from scripted import ScriptedServer, serving, wait_for_state, write_question

from support import chromium, free_port


@pytest.fixture(scope="module")
def question(tmp_path_factory):
    """A file for the microphone of the browser."""
    return write_question(tmp_path_factory.mktemp("sound") / "question.wav")


@pytest.fixture(scope="module")
def browser(question):
    with chromium(f"--use-file-for-fake-audio-capture={question}") as browser:
        yield browser


@pytest.fixture
def fake():
    """The server that the page talks to."""
    scripted = ScriptedServer()
    with serving(scripted.app, free_port()) as url:
        scripted.url = url
        yield scripted


@pytest.fixture
def page(browser, fake):
    context = browser.new_context(permissions=["microphone", "camera"])
    page = context.new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.hosts = set()
    page.on("request", lambda request: page.hosts.add(urlsplit(request.url).hostname))
    page.goto(fake.url)
    wait_for_state(page, "ready")
    yield page
    context.close()
    assert page.problems == []
