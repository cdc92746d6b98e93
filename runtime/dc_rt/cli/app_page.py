"""`dc-rt app`: the page, from what was typed."""

from __future__ import annotations

import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from dc_rt.cli.terminal import say
from dc_rt.errors import UserError, option
from dc_rt.gpu import check_card_is_here
from dc_rt.installation import install_command
from dc_rt.models import ModelOptions, Models
from dc_rt.serve.settings import PASSWORD, Limits, own_names
from dc_rt.user_cache import user_cache


class Asked(NamedTuple):
    """What was typed."""

    folder: Path | None
    keep: bool
    host: str
    port: int
    no_browser: bool
    password_file: Path | None
    no_password: bool
    names: list[str]
    limits: Limits


def run_app(asked: Asked, models: ModelOptions) -> None:
    """Serve the page until SIGTERM or Ctrl-C.

    Raises:
        UserError: the extra is not installed, or it cannot serve so.
    """
    if not find_spec("gradio"):
        raise UserError(f"dc-rt app needs Gradio, which is not installed; run `{install_command('app')}`.")
    # What is wrong is said before what takes seconds is imported.
    if asked.keep and asked.folder is None:
        raise UserError(
            f"{option('keep', True)} keeps results in a folder of yours; give {option('folder', 'DIR')} too."
        )
    password = PASSWORD.read(asked.password_file)
    os.environ.pop(PASSWORD.environment, None)  # the processes that decode what others sent have no use for it
    PASSWORD.check_reach(asked.host, password, asked.no_password)
    models.check()
    check_card_is_here()
    Models(models, lambda lines: None)  # so that engines that are none are said now
    from dc_rt.webapp.run import Setup, run

    logging.getLogger("dc_rt.serve").setLevel(logging.INFO)
    setup = Setup(
        (asked.folder or user_cache() / "app").absolute(),
        asked.keep,
        asked.host,
        asked.port,
        password,
        own_names(asked.host, asked.names),
        asked.limits,
        not asked.no_browser and _has_display(),
    )
    run(setup, models, say)


def _has_display() -> bool:
    """Whether there is somewhere for a browser to open: elsewhere one that runs in the terminal would take it over."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
