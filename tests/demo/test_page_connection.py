"""What the page does when the server cannot be had, and when it is back."""

import asyncio
import time

from scripted import QUESTION, entries, wait_for_state


def test_a_page_that_is_not_secure_says_what_to_do(browser, fake):
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script("Object.defineProperty(window, 'isSecureContext', {value: false})")
    page.goto(fake.url)
    wait_for_state(page, "ready")
    page.get_by_role("button", name="Talk").click()
    page.locator("#omni-alert").wait_for()
    words = page.locator("#omni-alert").inner_text()
    assert "omni demo --ssl" in words
    assert "open this page over https" in words
    page.get_by_label("Type a question").fill("Hello")  # typing works
    page.get_by_label("Type a question").press("Enter")
    wait_for_state(page, "speaking", "thinking")
    context.close()


def test_a_full_server_is_named_and_tried_again(browser, fake):
    fake.close_with = (1013, "8 of 8 sessions are in use")
    context = browser.new_context()
    page = context.new_page()
    page.goto(fake.url)
    wait_for_state(page, "full")
    assert "full. Trying again in" in page.locator("#omni-state").inner_text()
    fake.close_with = None
    wait_for_state(page, "ready", seconds=20)
    context.close()


def test_a_server_that_is_still_loading_is_told_from_a_full_one(browser, fake):
    fake.close_with, fake.status = (1013, "the server is not ready"), "starting"
    context = browser.new_context()
    page = context.new_page()
    page.goto(fake.url)
    wait_for_state(page, "starting")
    fake.close_with, fake.waits = None, True
    page.reload()
    wait_for_state(page, "starting")
    assert "loading its models" in page.locator("#omni-state").inner_text()
    fake.waits = False
    wait_for_state(page, "ready")
    context.close()


def test_a_lost_connection_comes_back_and_says_that_the_past_is_forgotten(page, fake):
    page.get_by_label("Type a question").fill("Hello")
    page.get_by_label("Type a question").press("Enter")
    wait_for_state(page, "speaking")
    fake.close(1001, "restarting")
    page.get_by_text("what was said above is forgotten").wait_for()
    wait_for_state(page, "ready")
    assert "restarting" in page.get_by_role("alert").inner_text()
    assert fake.sessions == 3  # in vain with the old one's id, and anew


def test_a_lost_connection_is_restored_and_the_conversation_goes_on(page, fake):
    fake.keeps = fake.paused = True
    page.get_by_label("Type a question").fill("Hello")
    page.get_by_label("Type a question").press("Enter")
    wait_for_state(page, "thinking")
    content = [{"type": "output_text", "text": "Said meanwhile."}]
    said = {"id": "a", "type": "message", "role": "assistant", "content": content}
    fake.items.append(said)
    fake.close(1012, "restarting")
    page.get_by_text("the conversation goes on").wait_for()
    assert entries(page, "user").count() == 1
    assert entries(page, "assistant").last.locator(".omni-words").inner_text() == "Said meanwhile."
    assert page.get_by_role("alert").is_hidden()
    assert len(fake.of_type("response.create")) == 1
    fake.paused = False
    page.get_by_label("Type a question").fill("Hello again")
    page.get_by_label("Type a question").press("Enter")
    wait_for_state(page, "speaking")
    assert fake.sessions == 2


def test_a_question_that_got_lost_on_the_way_is_asked_again(page, fake):
    fake.keeps = True
    # As into a connection that broke and does not know it yet.
    page.evaluate(
        "() => { window.send = WebSocket.prototype.send; WebSocket.prototype.send = () => {} }"
    )
    page.get_by_label("Type a question").fill(QUESTION)
    page.get_by_label("Type a question").press("Enter")
    page.evaluate("() => { WebSocket.prototype.send = window.send }")
    fake.close(1011, "")
    wait_for_state(page, "speaking")
    assert entries(page, "user").count() == entries(page, "assistant").count() == 1
    assert len(fake.of_type("conversation.item.create")) == 1


def test_a_reload_goes_on_with_the_conversation(page, fake):
    fake.keeps = True
    page.get_by_label("Type a question").fill("Hello")
    page.get_by_label("Type a question").press("Enter")
    wait_for_state(page, "speaking")
    page.reload()
    page.get_by_text("Hello", exact=True).wait_for()
    wait_for_state(page, "ready")
    assert fake.ws.query_params["session_id"] == "sess"
    assert page.locator(".omni-line").count() == 0
    assert page.locator("#omni-alert").is_hidden()
    page.get_by_role("button", name="New conversation").click()
    page.get_by_text("Hello", exact=True).wait_for(state="detached")


def test_a_reload_begins_anew_without_a_word_where_nothing_is_kept(page, fake):
    page.get_by_label("Type a question").fill("Hello")
    page.get_by_label("Type a question").press("Enter")
    wait_for_state(page, "speaking")
    page.reload()
    wait_for_state(page, "ready")
    assert fake.sessions == 3  # in vain with the old one's id, and anew
    assert page.locator("#omni-log > li").count() == 0
    assert page.locator("#omni-alert").is_hidden()
    page.get_by_label("Type a question").fill("Hello")
    page.get_by_label("Type a question").press("Enter")
    wait_for_state(page, "speaking")


def test_another_window_is_another_conversation(page, fake):
    other = page.context.new_page()
    other.goto(fake.url)
    wait_for_state(other, "ready")
    assert "session_id" not in fake.ws.query_params
    assert page.locator("#omni").get_attribute("data-state") == "ready"


def test_a_session_that_went_elsewhere_is_taken_back_only_on_request(page, fake):
    fake.keeps = True
    fake.close(4001, "the session goes on over another connection")
    wait_for_state(page, "elsewhere")
    assert "in another window" in page.locator("#omni-state").inner_text()
    time.sleep(1)
    assert fake.sessions == 1
    page.get_by_role("button", name="Go on here").click()
    wait_for_state(page, "ready")
    assert fake.ws.query_params["session_id"] == "sess"
    assert page.get_by_role("button", name="Go on here").is_hidden()
    assert page.locator("#omni-alert").is_hidden()


def test_a_server_with_keys_is_given_one_that_is_asked_for_once(browser, fake):
    fake.key = "secret"
    context = browser.new_context()
    page = context.new_page()
    page.goto(fake.url)
    wait_for_state(page, "refused")
    for key in ("wrong", "secret"):
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Connect").click()
        if key == "wrong":
            page.get_by_text("does not know this key").wait_for()
    wait_for_state(page, "ready")
    assert page.get_by_label("API key").is_hidden()
    page.reload()
    wait_for_state(page, "ready")
    context.close()


def test_a_server_error_is_shown_in_its_own_words(page, fake):
    error = {"type": "error", "error": {"message": "image is 90 megapixels; at most 40"}}
    asyncio.run_coroutine_threadsafe(fake.ws.send_json(error), fake.loop).result()
    page.get_by_text("90 megapixels").wait_for()
