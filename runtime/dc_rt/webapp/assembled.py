"""The parts of an app put together: jobs and their worker, the page, and the gate before them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import gradio as gr
from fastapi import FastAPI

from dc_rt.models import ModelOptions
from dc_rt.serve.crew import Crew
from dc_rt.serve.store import Store, remove_expired
from dc_rt.webapp.desk import Desk
from dc_rt.webapp.files import routes
from dc_rt.webapp.gate import Gate
from dc_rt.webapp.home import Home
from dc_rt.webapp.page import TITLE, Page
from dc_rt.webapp.run import Setup

_HEAD = """
<link rel="icon" href="/page/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/page/app.css">
<script type="module" src="/page/app.js"></script>
"""
_FONT = ["system-ui", "sans-serif"]
_MONO = ["ui-monospace", "monospace"]
_HUE = gr.themes.Color(
    *("#fdf2f9", "#fae3f2", "#f5c8e5", "#eda0d1", "#dd6ab3", "#c43d94"),
    *("#8c2369", "#761d59", "#611a4a", "#521a40", "#33082a"),
)
_GREY = gr.themes.Color(
    *("#faf9fb", "#f6f5f8", "#e9e6ee", "#dcd8e3", "#a49db1", "#756e82"),
    *("#565063", "#3a3446", "#2a2534", "#1f1b27", "#141119"),
)


def assembled(
    setup: Setup, model: ModelOptions, home: Home, port: int, examples: Sequence[Path]
) -> tuple[Store, Crew, Gate]:
    """The jobs, their worker, and the app that asks for them: `port` is the one that it listens on."""
    limits = setup.limits
    store = Store(home.jobs, limits)
    crew = Crew(store, lambda job, seconds: None, model, [{}])
    desk = Desk(store, crew, model, limits, home.uploads)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        crew.start()
        expiry = asyncio.create_task(remove_expired(store, limits.keep_days))
        yield
        expiry.cancel()

    inner = FastAPI(title=TITLE, lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    gate = Gate(inner, names=setup.names, password=setup.password, port=port, uploads=home.uploads, limits=limits)
    inner.router.routes += routes(desk, gate.browser_of)
    page = Page(desk, gate.browser_of, examples, _how_long(setup), 24 * limits.keep_days)
    page.blocks.queue(default_concurrency_limit=None, api_open=False)
    known = inspect.signature(gr.mount_gradio_app).parameters
    later = {"run_history": False}  # options that Gradio has from some later version on
    gr.mount_gradio_app(
        inner,
        page.blocks,
        path="/",
        server_name=setup.host,
        server_port=port,
        footer_links=[],
        show_error=False,
        max_file_size=int(limits.upload_bytes),
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=gr.themes.Base(primary_hue=_HUE, secondary_hue=_HUE, neutral_hue=_GREY, font=_FONT, font_mono=_MONO),
        head=_HEAD,
        **{name: value for name, value in later.items() if name in known},
    )
    return store, crew, gate


def _how_long(setup: Setup) -> str:
    hours = 24 * setup.limits.keep_days
    end = (
        f"Results stay in {setup.folder.name} when the app ends."
        if setup.keeps
        else "All is removed when the app ends."
    )
    return f"Results are here for {hours:g} hours. {end}" if hours else end
