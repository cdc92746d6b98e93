"""The app from its start to its end: what belongs to it is made, served, and cleared away."""

from __future__ import annotations

import os
import signal
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dc_rt.listening import address, listen
from dc_rt.models import ModelOptions
from dc_rt.serve.settings import Limits

_CLOSE_SECONDS = 5.0
_EXAMPLES = ("demo.mp4", "balls.mp4")
_HERE = Path(__file__).parent
# In a checkout they lie there; a wheel has them here.
_EXAMPLE_FOLDERS = (_HERE / "examples", _HERE.parents[2] / "examples")


@dataclass(frozen=True)
class Setup:
    """How the app is set up.

    Attributes:
        folder: where it works, and where results stay.
        keeps: whether they stay once it ends.
        host, port: that it listens on.
        password: that who asks must know; None where anybody may ask.
        names: that a request may call this machine, in lower case.
        limits: how much it takes.
        opens: whether the page is opened in a browser.
    """

    folder: Path
    keeps: bool
    host: str
    port: int
    password: str | None
    names: frozenset[str]
    limits: Limits
    opens: bool


def run(setup: Setup, model: ModelOptions, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises `UserError` where that cannot be."""
    from dc_rt.serve import server
    from dc_rt.serve.connections import AT_ONCE
    from dc_rt.webapp.home import Home

    _hear_signals()
    listening = listen(setup.host, setup.port, AT_ONCE)
    home = Home(setup.folder, setup.keeps)
    try:
        url = address(listening)

        def on_start() -> None:
            say(f"The app is at {url}; Ctrl-C ends it.")
            if setup.opens:
                webbrowser.open(url)

        _tell_gradio(home.uploads)
        from dc_rt.webapp.assembled import assembled

        store, crew, gate = assembled(setup, model, home, listening.getsockname()[1], examples())

        def on_end() -> None:
            gate.end()
            crew.stop()

        try:
            server.run(gate, setup.limits, listening, on_start, on_end)
        finally:
            crew.close(_CLOSE_SECONDS)
            store.close()
    finally:
        for results in home.close():
            say(f"Results are in {results}.")


def examples() -> list[Path]:
    """The example videos; none in an installation that has been stripped of them."""
    for folder in _EXAMPLE_FOLDERS:
        if found := [folder / name for name in _EXAMPLES if (folder / name).is_file()]:
            return found
    return []


def _hear_signals() -> None:
    """SIGTERM is as Ctrl-C until the server hears it, and so is that the terminal has gone: all is cleared away."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    if hasattr(signal, "SIGHUP"):  # which Windows has none of
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))


def _tell_gradio(uploads: Path) -> None:
    """Before it is imported: where it may write, and that it is to ask and tell nobody anything."""
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:  # of other apps
        del os.environ[name]
    os.environ |= {
        "GRADIO_TEMP_DIR": str(uploads),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
    }
