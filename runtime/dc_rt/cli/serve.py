"""`dc-rt serve`: the service, from what was typed."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from dc_rt.cli.terminal import say
from dc_rt.errors import UserError
from dc_rt.gpu import check_devices
from dc_rt.installation import install_command
from dc_rt.listening import address, listen
from dc_rt.models import ModelOptions, Models
from dc_rt.serve.settings import TOKEN, Limits, Settings, own_names, resolved_roots

_NEEDED = ("fastapi", "uvicorn", "prometheus_client")


class Asked(NamedTuple):
    """What was typed."""

    folder: Path
    host: str
    port: int
    roots: list[Path]
    token_file: Path | None
    no_token: bool
    names: list[str]
    processes: tuple[int, tuple[str, ...]]
    limits: Limits


def serve_all(asked: Asked, models: ModelOptions) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises:
        UserError: the extra is not installed, or it cannot serve so.
    """
    if not all(map(find_spec, _NEEDED)):
        raise UserError(
            "dc-rt serve needs FastAPI, uvicorn and prometheus-client, and they are not all installed; run "
            f"`{install_command('serve')}`."
        )

    # What is wrong is said before what takes a second is imported.
    token = TOKEN.read(asked.token_file)
    os.environ.pop(TOKEN.environment, None)  # the processes that decode what others sent have no use for it
    TOKEN.check_reach(asked.host, token, asked.no_token)
    settings = Settings(
        asked.folder.absolute(),
        asked.host,
        asked.port,
        resolved_roots(asked.roots),
        token,
        own_names(asked.host, asked.names),
        asked.limits,
    )
    from dc_rt.job.worker import environments
    from dc_rt.serve import server
    from dc_rt.serve.app import create_app
    from dc_rt.serve.connections import AT_ONCE
    from dc_rt.serve.crew import Crew
    from dc_rt.serve.metrics import Metrics
    from dc_rt.serve.service import Service
    from dc_rt.serve.store import Store

    logging.getLogger("dc_rt.serve").setLevel(logging.INFO)
    models.check()
    check_devices(asked.processes[1])
    Models(models, lambda lines: None)  # so that engines that are none are said now
    store = Store(settings.folder, asked.limits)
    listening = listen(settings.host, settings.port, AT_ONCE)
    metrics = Metrics(store)
    crew = Crew(store, metrics.ended, models, environments(*asked.processes))
    app = create_app(Service(settings, models, store, crew, metrics))
    line = f"Listening on {address(listening)}; jobs are in {settings.folder}."
    server.run(app, settings.limits, listening, lambda: say(line), crew.stop)
    store.close()
