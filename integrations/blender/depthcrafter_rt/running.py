"""The run that is under way, of which there is one at a time, and what came of the last one.

Blender's timer calls `step`, which takes in what has come and never waits. Where Blender has no timers, as in the
module bpy, whoever has started a run calls `step` until it returns None.
"""

import atexit
import os
from dataclasses import dataclass

import bpy

from . import loading
from .errors import Problem
from .follow import Run, in_minutes
from .program import clean_environment, find
from .settings import choices_of, configured_program, settings_of

_SECONDS = 0.25  # between two steps
_STOP_SECONDS = 3.0  # that Blender waits for, when it closes or opens a file amid a run


@dataclass
class State:
    """What the panels show.

    Attributes:
        run: under way; None where none is.
        scene: name of the scene that it is of, since scenes can go meanwhile.
        sentence: what is to be said last; "" for nothing.
        is_error: whether that is an error.
        notes: what is to be said beside it.
    """

    run: Run | None = None
    scene: str = ""
    sentence: str = ""
    is_error: bool = False
    notes: tuple[str, ...] = ()

    def say(self, sentence: str, is_error: bool = False, notes: tuple[str, ...] = ()) -> None:
        """Show this from now on."""
        self.sentence, self.is_error, self.notes = sentence, is_error, notes


state = State()


def start(scene: bpy.types.Scene) -> None:
    """Start a run of the scene's video.

    Raises:
        Problem: one is under way, or it cannot be started.
    """
    if state.run:
        raise Problem("A run is under way; cancel it, or wait for its end.")
    command = [str(find(configured_program())), *choices_of(scene).arguments()]
    state.run = Run(command, clean_environment(os.environ))
    state.scene = scene.name
    state.say("")
    if not bpy.app.timers.is_registered(step):
        bpy.app.timers.register(step, first_interval=_SECONDS, persistent=True)


def cancel() -> None:
    """Cancel the run, if one is under way; `step` goes on until it has ended."""
    if state.run:
        state.run.cancel()


def step() -> float | None:
    """Take in what has come; the seconds after which to call it again, or None where there is no more to come."""
    run = state.run
    if run is None:
        return None
    if run.poll():
        _show(status_of(run))
        return _SECONDS
    state.run = None
    assert run.ending is not None
    state.say(run.ending.sentence, run.ending.is_error, tuple(run.notes))
    if run.ending.record:
        _load(run)
    _show(None)
    _report()
    return None


def status_of(run: Run) -> str:
    """What a run is at, in a line."""
    share = "" if run.share is None else f"{100 * run.share:.0f} %, "
    left = "" if run.seconds_left is None or run.is_cancelled else f", {in_minutes(run.seconds_left)} left"
    return f"{share}{run.doing}{left}"


def _load(run: Run) -> None:
    """Load what a run has left into its scene, as this says."""
    assert run.ending is not None
    assert run.ending.record is not None
    scene = bpy.data.scenes.get(state.scene)
    if scene is None:
        state.say(f"{state.sentence} Its scene is gone; load {run.ending.record} into another one.")
        return
    try:
        state.notes += loading.load(run.ending.record, scene, settings_of(scene).load_as)
        _remember()
    except Problem as problem:
        state.say(str(problem), True)
    except Exception as error:  # what is said of it must reach the person; the console has the rest
        state.say(f"The result is on disk, and loading it failed through a fault of the add-on ({error!r}).", True)


def stop(why: str) -> None:
    """End the run at once, if one is under way; what was done is kept."""
    if state.run:
        state.run.stop(_STOP_SECONDS)
        state.run = None
        state.say(f"The run was stopped when {why}; the same run resumes it.")
        _show(None)


@bpy.app.handlers.persistent
def _before_a_file(*_: object) -> None:
    stop("another file was opened")


def _at_exit() -> None:
    if state.run:
        state.run.stop(_STOP_SECONDS)


def _show(status: str | None) -> None:
    """In the status bar, and in all panels."""
    for window in bpy.context.window_manager.windows:
        window.workspace.status_text_set(status and f"DepthCrafter-RT: {status}")
        for area in window.screen.areas:
            if area.type in ("VIEW_3D", "SEQUENCE_EDITOR"):
                area.tag_redraw()


def _remember() -> None:
    """A step of its own for Undo, which what is done outside of operators is not."""
    for window in list(bpy.context.window_manager.windows)[:1]:
        with bpy.context.temp_override(window=window):
            if bpy.ops.ed.undo_push.poll():
                bpy.ops.ed.undo_push(message="Load Depth")


def _report() -> None:
    """As Blender reports what operators have to say; without a window there is nobody to read it."""
    for window in list(bpy.context.window_manager.windows)[:1]:
        with bpy.context.temp_override(window=window):
            bpy.ops.depthcrafter.tell("INVOKE_DEFAULT", sentence=state.sentence, is_error=state.is_error)


def register() -> None:
    """Called when the add-on is enabled."""
    bpy.app.handlers.load_pre.append(_before_a_file)
    atexit.register(_at_exit)


def unregister() -> None:
    """Called when it is disabled, and when Blender closes."""
    stop("the add-on was disabled")
    if bpy.app.timers.is_registered(step):
        bpy.app.timers.unregister(step)
    bpy.app.handlers.load_pre.remove(_before_a_file)
    atexit.unregister(_at_exit)
