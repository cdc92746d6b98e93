"""What is seen in the sidebars of the 3D viewport and of the sequencer."""

import textwrap
from typing import ClassVar

import bpy

from . import running
from .nodes import RELIEF_GROUP, SCENE_GROUP, inputs_of
from .settings import settings_of

_CATEGORY = "Depth"
_LETTER = 7  # pixels of a letter, about, at the interface's usual scale
# What is changed after a result is loaded; the rest of a group's inputs follows from it.
_CHANGED = {
    SCENE_GROUP: ("Near", "Far", "Cut Edges", "Pixels per Vertex"),
    RELIEF_GROUP: ("Width", "Strength", "Pixels per Vertex"),
}


class _Main:
    """Video, run, and what came of it."""

    layout: ClassVar[bpy.types.UILayout]
    bl_space_type: ClassVar[str]
    bl_label = "DepthCrafter-RT"
    bl_region_type = "UI"
    bl_category = _CATEGORY

    def draw(self, context: bpy.types.Context) -> None:
        """Called by Blender."""
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        settings = settings_of(context.scene)
        column = layout.column()
        column.enabled = running.state.run is None
        column.prop(settings, "video")
        if self.bl_space_type == "SEQUENCE_EDITOR":
            column.operator("depthcrafter.take_strip")
        for name in ("save_folder", "max_res", "steps", "sampler", "first_frame", "load_as", "sets_scene"):
            column.prop(settings, name)
        _draw_run(layout)
        layout.operator("depthcrafter.load", icon="FILE_FOLDER")
        _draw_sentences(layout, context.region.width)


class _Options:
    """Options that few change."""

    layout: ClassVar[bpy.types.UILayout]
    bl_label = "More Options"
    bl_region_type = "UI"
    bl_category = _CATEGORY
    bl_options: ClassVar[set[str]] = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        """Called by Blender."""
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.enabled = running.state.run is None
        settings = settings_of(context.scene)
        names = ("engines", "window_size", "overlap", "seed", "target_fps", "process_length", "size", "exr_type")
        for name in (*names, "videos", "restart", "overwrite", "more"):
            layout.prop(settings, name)
        layout.operator("depthcrafter.check", text="Check dc-rt", icon="CHECKMARK")


class ViewPanel(_Main, bpy.types.Panel):
    """In the 3D viewport."""

    bl_idname = "VIEW3D_PT_depthcrafter"
    bl_space_type = "VIEW_3D"


class ViewOptions(_Options, bpy.types.Panel):
    """Below it."""

    bl_idname = "VIEW3D_PT_depthcrafter_options"
    bl_parent_id = "VIEW3D_PT_depthcrafter"
    bl_space_type = "VIEW_3D"


class ShapePanel(bpy.types.Panel):
    """Of a mesh that was loaded: what its shape depends on."""

    bl_idname = "VIEW3D_PT_depthcrafter_shape"
    bl_label = "Depth of Active Object"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = _CATEGORY

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Called by Blender."""
        return _depth_modifier(context.object) is not None

    def draw(self, context: bpy.types.Context) -> None:
        """Called by Blender."""
        layout = self.layout
        layout.use_property_split = True
        modifier = _depth_modifier(context.object)
        if modifier is None:
            return
        known = inputs_of(modifier.node_group)
        parent = context.object.parent
        if parent and parent.type == "CAMERA":
            layout.prop(parent.data, "lens")
        for name in _CHANGED[_kind_of(modifier)]:
            layout.prop(modifier, f'["{known[name]}"]', text=name)


class SequencerPanel(_Main, bpy.types.Panel):
    """In the sequencer."""

    bl_idname = "SEQUENCER_PT_depthcrafter"
    bl_space_type = "SEQUENCE_EDITOR"


class SequencerOptions(_Options, bpy.types.Panel):
    """Below it."""

    bl_idname = "SEQUENCER_PT_depthcrafter_options"
    bl_parent_id = "SEQUENCER_PT_depthcrafter"
    bl_space_type = "SEQUENCE_EDITOR"


def _draw_run(layout: bpy.types.UILayout) -> None:
    run = running.state.run
    if run is None:
        layout.operator("depthcrafter.infer", icon="PLAY")
        return
    layout.progress(factor=run.share or 0.0, type="BAR", text=running.status_of(run))
    row = layout.row()
    row.enabled = not run.is_cancelled
    row.operator("depthcrafter.cancel", icon="CANCEL")


def _draw_sentences(layout: bpy.types.UILayout, width: int) -> None:
    """What is to be said, broken into lines, which Blender's labels are not."""
    state = running.state
    scale = bpy.context.preferences.system.ui_scale or 1.0  # 0 where Blender has no window
    letters = max(int(width / (_LETTER * scale)), 20)
    for sentence in (state.sentence, *state.notes):
        column = layout.column(align=True)
        column.alert = state.is_error and sentence == state.sentence
        for line in textwrap.wrap(sentence, letters):
            column.label(text=line)


def _depth_modifier(shown: bpy.types.Object | None) -> bpy.types.NodesModifier | None:
    for modifier in shown.modifiers if shown else ():
        if modifier.type == "NODES" and modifier.node_group and _kind_of(modifier) in _CHANGED:
            return modifier
    return None


def _kind_of(modifier: bpy.types.NodesModifier) -> str:
    """The group's name, without the number that Blender adds to one that is there twice."""
    name: str = modifier.node_group.name
    return name.partition(".")[0]


CLASSES = (ViewPanel, ViewOptions, ShapePanel, SequencerPanel, SequencerOptions)
