"""What a job tells those who listen to it. All are plain values, so that they can cross to another process as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, get_args

from dc_rt.errors import UserError


@dataclass(frozen=True)
class Planned:
    """What will be done, before any of it.

    Attributes:
        video: its path.
        source_frames, source_height, source_width, source_fps: of the video, as a player shows it.
        num_frames, fps: of the results. Of a pipe, whose end has not come, all numbers of frames are 0.
        height, width: that the model runs at; `notes` say it where the results have another size.
        num_evaluated: frames that go through the denoiser in all: every window's, at every evaluation of every step. As
            of one shot, where the shots are found first (`ShotsFound`).
        notes: what is to be said of the video, and of the options.
        demonstration: of a model that is no substitute for the real weights, what it is good for; else empty.
    """

    video: str
    source_frames: int
    source_height: int
    source_width: int
    source_fps: float
    num_frames: int
    height: int
    width: int
    fps: float
    num_evaluated: int
    notes: tuple[str, ...] = ()
    demonstration: str = ""


@dataclass(frozen=True)
class ShotsFound:
    """The shots of the video, which the plan left open, are known: how many, and `num_evaluated` as planned, of all."""

    num_shots: int
    num_evaluated: int


@dataclass(frozen=True)
class Resumed:
    """An unfinished run is resumed after its first `num_frames` frames; `num_evaluated` as planned, of what is left."""

    num_frames: int
    num_evaluated: int


@dataclass(frozen=True)
class Progressed:
    """Some work of a stage is done.

    Attributes:
        stage: "detect" (looked through for cuts between shots, before all else), "read", the name of the graph that was
            run ("clip_encoder": embedded, "vae_encoder": encoded, "denoiser": one evaluation of each frame,
            "vae_decoder": decoded), or "write".
        num_frames: frames that are done with; 0 for what is written between frames.
        seconds: that it took, beside the other stages.
    """

    stage: str
    num_frames: int
    seconds: float


@dataclass(frozen=True)
class WindowDone:
    """The first `num_frames` frames of the video are kept: a run that ends now is resumed from here."""

    num_frames: int


@dataclass(frozen=True)
class Warned:
    """What is to be said of the video once all of it was read, such as what could not be decoded."""

    sentence: str


@dataclass(frozen=True)
class Finished:
    """All results are in place.

    Attributes:
        files: and folders of frames, by path, in the order in which they were put there.
        num_frames: of each result.
        seconds: since this run began.
    """

    files: tuple[str, ...]
    num_frames: int
    seconds: float


@dataclass(frozen=True)
class Cancelled:
    """The job was cancelled; `is_resumable` if something is kept that another run resumes."""

    is_resumable: bool


@dataclass(frozen=True)
class Failed:
    """The job ended with an error.

    Attributes:
        sentence: what is wrong and the fix, with its options marked (`dc_rt.errors.option`); of a bug, what it is.
        is_bug: whether it is a fault of this program's own.
        is_resumable: whether something is kept that another run resumes.
        errno: the system's number of an error of the disk, which may be another one the next time; else None.
        filename: the file that such an error is of, where it is known.
    """

    sentence: str
    is_bug: bool
    is_resumable: bool
    errno: int | None = None
    filename: str = ""

    @classmethod
    def of(cls, error: BaseException, is_resumable: bool) -> Self:
        """What is to be told of an error that ended a job."""
        sentence = error.sentence if isinstance(error, UserError) else str(error) or type(error).__name__
        if isinstance(error, OSError):
            return cls(sentence, False, is_resumable, error.errno, str(error.filename or ""))
        return cls(sentence, not isinstance(error, UserError), is_resumable)


@dataclass(frozen=True)
class ModelOpened:
    """A worker has opened the model that runs the video; `lines` say which and why, options marked."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class AlreadyDone:
    """There was nothing to do: a run of the same video, engines and options has left this.

    Attributes:
        files: and folders of frames, by path.
        num_frames: of each result.
    """

    files: tuple[str, ...]
    num_frames: int


@dataclass(frozen=True)
class HeldByAnother:
    """Another worker is at these results; `holder` says which."""

    holder: str


@dataclass(frozen=True)
class TakenOver:
    """Another worker took the results over meanwhile: this run wrote nothing since, and has ended."""


Event = (
    Planned
    | ShotsFound
    | Resumed
    | Progressed
    | WindowDone
    | Warned
    | Finished
    | Cancelled
    | Failed
    | ModelOpened
    | AlreadyDone
    | HeldByAnother
    | TakenOver
)
ENDINGS = (Finished, Cancelled, Failed, AlreadyDone, HeldByAnother, TakenOver)
"""Those after which nothing more happens."""

Listener = Callable[[Event], None]
"""Is called with every event, one at a time, from whichever thread it happens in. What it raises ends the job."""

_KINDS = {kind.__name__: kind for kind in get_args(Event)}


def as_json(event: Event) -> dict[str, Any]:
    """The event as JSON can hold it: its fields by name, and its kind as "event"."""
    return {"event": type(event).__name__} | dataclasses.asdict(event)


def from_json(values: Mapping[str, Any]) -> Event:
    """What `as_json` gave, after JSON."""
    kind: Any = _KINDS[values["event"]]
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    event: Event = kind(**{name: value for name, value in fields.items() if name != "event"})
    return event
