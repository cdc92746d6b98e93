"""How the service is set up: where it listens, who may ask, and how much."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dc_rt.errors import UserError, option
from dc_rt.listening import is_loopback

GB = 10**9
_SHORTEST = 16  # of characters of a secret


@dataclass(frozen=True)
class Limits:
    """How much the service takes.

    Attributes:
        upload_bytes: of a video that is sent, at most; a fraction of a byte is as good as none.
        num_frames: that a job estimates, at most.
        num_steps: of denoising, that a job may ask for at most.
        num_pixels: of a picture of the video or of the results, at most.
        num_queued: jobs that wait, those that are being sent among them, at most.
        free_bytes: of the disk, that are left free.
        upload_seconds: that sending a video may take.
        pause_seconds: between two pieces of a body.
        head_seconds: that the head of a request may take to come.
        check_seconds: that looking a video through may take.
        num_streams: of events, at once.
        num_connections: at once; fewer where the system gives a process too few files for them.
        keep_days: after which a job that has ended is removed; 0 for never.
    """

    upload_bytes: float = 4 * GB
    num_frames: int = 20_000
    num_steps: int = 50
    num_pixels: int = 4096 * 2304
    num_queued: int = 100
    free_bytes: float = 1 * GB
    upload_seconds: float = 3600.0
    pause_seconds: float = 30.0
    head_seconds: float = 20.0
    check_seconds: float = 60.0
    num_streams: int = 200
    num_connections: int = 1000
    keep_days: float = 0.0

    def __post_init__(self) -> None:
        for name in ("num_frames", "num_steps", "num_pixels", "num_queued", "upload_bytes"):
            if not 1 <= getattr(self, name) < math.inf:
                raise UserError(f"{option(_OPTIONS[name])} must be more than 0 and finite; try another number.")
        for name in ("free_bytes", "keep_days"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{option(_OPTIONS[name])} must be finite and not negative; try 0.")


# What the limits are called on the command line.
_OPTIONS = {
    "upload_bytes": "max_upload",
    "num_frames": "max_frames",
    "num_steps": "max_steps",
    "num_pixels": "max_pixels",
    "num_queued": "max_queue",
    "free_bytes": "min_free",
    "keep_days": "keep_days",
}


@dataclass(frozen=True)
class Settings:
    """How the service is set up.

    Attributes:
        folder: where jobs are kept.
        host, port: that it listens on.
        roots: folders, resolved, whose videos may be named by their path.
        token: that who asks must know; None where anybody may ask.
        names: that a request may call this machine, beside addresses and `localhost`, in lower case.
        limits: how much it takes.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8000
    roots: tuple[Path, ...] = ()
    token: str | None = field(default=None, repr=False)
    names: frozenset[str] = frozenset()
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Secret:
    """What whoever asks must know, as it is given: a token of programs, or a password of people.

    Attributes:
        word: what it is called; in options too.
        environment: the variable that it is taken from where no file is given.
    """

    word: str
    environment: str

    def read(self, file: Path | None, environment: Mapping[str, str] = os.environ) -> str | None:
        """The one in a file, else in the variable; None where neither is given.

        Raises:
            UserError: it is too short, or no text that can be sent.
        """
        if file is None and self.environment not in environment:
            return None
        named = f"The {self.word} in {f'${self.environment}' if file is None else file}"
        mend = "make one with `python -c 'import secrets; print(secrets.token_urlsafe())'`"
        try:
            secret = environment[self.environment] if file is None else file.read_text("ascii")
        except OSError as error:
            raise UserError(f"{named} cannot be read ({error.strerror}); check the file.") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{named} must be ASCII; {mend}.") from error
        secret = secret.strip()
        if len(secret) < _SHORTEST or not secret.isascii() or not secret.isprintable() or " " in secret:
            raise UserError(f"{named} must have at least {_SHORTEST} characters of ASCII without spaces; {mend}.")
        return secret

    def check_reach(self, host: str, secret: str | None, is_open: bool) -> None:
        """Raise `UserError` where others could come in and nobody is asked for a secret, unless `is_open` says so."""
        without = option(f"no_{self.word}", True)
        if secret and is_open:
            raise UserError(f"{without} is for a service without one; leave it or the {self.word} out.")
        if not (secret or is_open or is_loopback(host)):
            raise UserError(
                f"{option('host', host)} lets other machines in, and there is no {self.word}; give "
                f"{option(f'{self.word}_file', 'FILE')}, or {without} where whoever reaches it may use it."
            )


TOKEN, PASSWORD = Secret("token", "DC_RT_TOKEN"), Secret("password", "DC_RT_PASSWORD")
"""Of `dc-rt serve`, and of `dc-rt app`."""


def resolved_roots(roots: tuple[Path, ...] | list[Path]) -> tuple[Path, ...]:
    """The folders with links followed; raises `UserError` for what is no folder."""
    for root in roots:
        if not root.is_dir():
            raise UserError(f"{option('root', root)} is no folder; name one, or leave it out.")
    return tuple(root.resolve() for root in roots)


def own_names(host: str, more: list[str]) -> frozenset[str]:
    """What a request may call this machine, beside addresses and `localhost`."""
    return frozenset(name.lower() for name in (host, socket.gethostname(), *more) if name)
