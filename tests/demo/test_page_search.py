"""What the server found, shown in the page."""

import asyncio
import base64
import io
import json

from PIL import Image


def picture(colour: str) -> str:
    file = io.BytesIO()
    Image.new("RGB", (40, 20), colour).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def test_what_was_found_is_shown_with_names_and_prices(page, fake) -> None:
    results = [
        {"title": "Red cup", "price": 9.5, "currency": "EUR", "picture_url": picture("red")},
        {"title": "", "seen": "espresso", "price": None, "picture_url": picture("brown")},
        {"title": "A book", "price": 5, "currency": None, "picture_url": None},
    ]
    item = {
        "id": "found",
        "type": "mcp_call",
        "status": "completed",
        "name": "search",
        "server_label": "omni",
        "arguments": json.dumps({"query": "something to drink coffee from"}),
        "output": json.dumps({"results": results, "notes": []}),
    }
    for kind, fields in (
        ("response.created", {"response": {"id": "r"}}),
        ("response.output_item.added", {"response_id": "r", "item": item}),
        ("response.output_item.done", {"response_id": "r", "item": item}),
    ):
        asyncio.run_coroutine_threadsafe(fake.tell(kind, **fields), fake.loop).result(10)
    page.get_by_alt_text("Red cup").wait_for()
    assert page.locator(".omni-found figcaption").all_inner_texts() == [
        "Red cup, 9.5 EUR",
        "espresso",
    ]
    page.get_by_text("Tool search done").click()
    assert "drink coffee" in page.locator(".omni-tool").inner_text()
