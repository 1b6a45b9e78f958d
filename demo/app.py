"""The page: a Gradio app whose live part is plain JavaScript on ``/v1/realtime``.

Gradio brings the frame, the theme and the place for what forms do well; sound never passes through
a Python callback. Everything that the page loads comes from this server, so that it works offline.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

STATIC = Path(__file__).parent / "static"
_STATIC_PATH = "/static/omni"


class _Static(StaticFiles):
    """Files that the browser asks about each time, so that an upgrade never mixes old with new."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def mount(app: FastAPI, path: str = "/") -> FastAPI:
    """Serve the page at ``path`` of ``app``.

    Call it after the app has all its other routes: a page at ``/`` answers what no route before it
    does.
    """

    async def in_a_loop() -> FastAPI:
        return _mount(app, path)

    try:
        asyncio.get_running_loop()
    except RuntimeError:  # without a loop Gradio opens some of its own and never closes them
        return asyncio.run(in_a_loop())
    return _mount(app, path)


def _mount(app: FastAPI, path: str) -> FastAPI:
    app.mount(_STATIC_PATH, _Static(directory=STATIC), name="omni-static")
    base = f"{app.root_path}{_STATIC_PATH}"
    with gr.Blocks(title="Omni", analytics_enabled=False, fill_width=True) as page:
        gr.HTML((STATIC / "page.html").read_text("utf-8"), js_on_load=None)
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        page,
        path=path,
        theme=gr.themes.Base(
            font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
        head=f'<link rel="stylesheet" href="{base}/omni.css">'
        f'<script type="module" src="{base}/omni.js"></script>',
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
    )
    return mounted
