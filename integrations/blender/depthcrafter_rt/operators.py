"""What buttons do. Whatever a user can cause is reported in one sentence."""

import os
from pathlib import Path
from typing import ClassVar

import bpy

from . import loading, program, running
from .errors import Problem
from .settings import CAMERA, RELIEF, absolute, configured_program, settings_of

_Done = set[str]
DONE: _Done = {"FINISHED"}
NOT_DONE: _Done = {"CANCELLED"}


def _refuse(operator: bpy.types.Operator, problem: Problem) -> _Done:
    """Report what is wrong, and show it in the panels."""
    running.state.say(str(problem), True)
    operator.report({"ERROR"}, str(problem))
    return NOT_DONE


class Check(bpy.types.Operator):
    """See whether dc-rt is there and can be used."""

    bl_idname = "depthcrafter.check"
    bl_label = "Check"
    bl_description = "See whether dc-rt is there and can be used"

    def execute(self, _context: bpy.types.Context) -> _Done:
        """Called by Blender."""
        try:
            sentence = program.check(configured_program(), os.environ)
        except Problem as problem:
            return _refuse(self, problem)
        running.state.say(sentence)
        self.report({"INFO"}, sentence)
        return DONE


class Infer(bpy.types.Operator):
    """Start a run."""

    bl_idname = "depthcrafter.infer"
    bl_label = "Estimate Depth"
    bl_description = "Start dc-rt on the video, or resume what an unfinished run did; Blender stays usable meanwhile"

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Called by Blender."""
        return running.state.run is None

    def execute(self, context: bpy.types.Context) -> _Done:
        """Called by Blender."""
        try:
            running.start(context.scene)
        except Problem as problem:
            return _refuse(self, problem)
        return DONE


class Cancel(bpy.types.Operator):
    """Cancel the run."""

    bl_idname = "depthcrafter.cancel"
    bl_label = "Cancel"
    bl_description = "End the run; what was done is kept, and the same run resumes it"

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Called by Blender."""
        return running.state.run is not None

    def execute(self, _context: bpy.types.Context) -> _Done:
        """Called by Blender."""
        running.cancel()
        return DONE


class Load(bpy.types.Operator):
    """Load a result that is there."""

    bl_idname = "depthcrafter.load"
    bl_label = "Load Result"
    bl_description = "Load a result of dc-rt by its NAME.json"
    bl_options: ClassVar[set[str]] = {"REGISTER", "UNDO"}

    filepath: bpy.props.StringProperty(subtype="FILE_PATH")  # type: ignore[valid-type]
    filter_glob: bpy.props.StringProperty(default="*.json", options={"HIDDEN"})  # type: ignore[valid-type]
    load_as: bpy.props.EnumProperty(  # type: ignore[valid-type]
        name="Load as", items=[(CAMERA, "Camera", ""), (RELIEF, "Relief", "")]
    )

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> _Done:
        """Called by Blender."""
        if settings_of(context.scene).load_as == RELIEF:
            self.load_as = RELIEF
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: bpy.types.Context) -> _Done:
        """Called by Blender."""
        try:
            notes = loading.load(Path(absolute(self.filepath)), context.scene, self.load_as)
        except Problem as problem:
            return _refuse(self, problem)
        running.state.say("The result is loaded.", notes=notes)
        for note in notes:
            self.report({"WARNING"}, note)
        return DONE


class TakeStrip(bpy.types.Operator):
    """Choose the video of the active strip."""

    bl_idname = "depthcrafter.take_strip"
    bl_label = "Take Active Strip"
    bl_description = "Choose the video of the sequencer's active strip, from its first frame on"

    def execute(self, context: bpy.types.Context) -> _Done:
        """Called by Blender."""
        # From 5.0 on the sequencer may show another scene than the viewport.
        editor = (getattr(context, "sequencer_scene", None) or context.scene).sequence_editor
        strip = editor.active_strip if editor else None
        if strip is None or strip.type != "MOVIE":
            return _refuse(self, Problem("The active strip is no video; select one that is."))
        settings = settings_of(context.scene)
        settings.video = strip.filepath
        settings.first_frame = max(round(strip.frame_start), 0)  # of the whole video, where the strip is trimmed too
        return DONE


class Tell(bpy.types.Operator):
    """Report how a run has ended, which happens outside any operator."""

    bl_idname = "depthcrafter.tell"
    bl_label = "DepthCrafter-RT"
    bl_options: ClassVar[set[str]] = {"INTERNAL"}

    sentence: bpy.props.StringProperty()  # type: ignore[valid-type]
    is_error: bpy.props.BoolProperty()  # type: ignore[valid-type]

    def execute(self, _context: bpy.types.Context) -> _Done:
        """Called by Blender."""
        # An error, which is no failure of this operator's own, would be raised from its call.
        self.report({"WARNING" if self.is_error else "INFO"}, self.sentence)
        return DONE


CLASSES = (Check, Infer, Cancel, Load, TakeStrip, Tell)
