"""What a person sets: in the preferences, of this machine; in the scene, of its video."""

from dataclasses import fields
from pathlib import Path

import bpy

from .command import EXR_TYPES, SAMPLERS, SIZES, Choices
from .errors import Problem

# Blender finds the properties of a class among its annotations as they are: they must not be made text.
_DEFAULT = Choices("")

# Paths may be relative to the file, which Blender takes for granted before 4.5, and has no word for.
_PATH = {"PATH_SUPPORTS_BLEND_RELATIVE"} if bpy.app.version >= (4, 5, 0) else set()

CAMERA, RELIEF, NOTHING = "CAMERA", "RELIEF", "NOTHING"


class Preferences(bpy.types.AddonPreferences):
    """Where the program is."""

    bl_idname = __package__

    program: bpy.props.StringProperty(  # type: ignore[valid-type]
        name="dc-rt",
        description="The executable, or the virtual environment that it is in; empty to look on PATH",
        subtype="FILE_PATH",
        options=_PATH,
    )

    def draw(self, _context: bpy.types.Context) -> None:
        """Called by Blender."""
        self.layout.prop(self, "program")
        self.layout.operator("depthcrafter.check", icon="CHECKMARK")


def _enum(values: tuple[str, ...]) -> list[tuple[str, str, str]]:
    return [(each, each, "") for each in values]


class Settings(bpy.types.PropertyGroup):
    """Of a scene: the video, the options of its run, and how the result is loaded."""

    video: bpy.props.StringProperty(  # type: ignore[valid-type]
        name="Video", description="A video, or a folder of images", subtype="FILE_PATH", options=_PATH
    )
    save_folder: bpy.props.StringProperty(  # type: ignore[valid-type]
        name="Results",
        description="Where results go; empty for the folder depth beside the video",
        subtype="DIR_PATH",
        options=_PATH,
    )
    engines: bpy.props.StringProperty(  # type: ignore[valid-type]
        name="Engines",
        description="Engine set; empty for the one that dc-rt finds (--engines)",
        subtype="DIR_PATH",
        options=_PATH,
    )
    max_res: bpy.props.IntProperty(  # type: ignore[valid-type]
        name="Largest Side",
        description="Height or width to process at, in pixels (--max-res)",
        default=_DEFAULT.max_res,
        min=64,
    )
    steps: bpy.props.IntProperty(  # type: ignore[valid-type]
        name="Steps", description="Denoising steps (--num-denoising-steps)", default=_DEFAULT.steps, min=1
    )
    sampler: bpy.props.EnumProperty(  # type: ignore[valid-type]
        name="Sampler", description="trimmed leaves out what does not matter (--sampler)", items=_enum(SAMPLERS)
    )
    window_size: bpy.props.IntProperty(  # type: ignore[valid-type]
        name="Window", description="Frames that are estimated together", default=_DEFAULT.window_size, min=1
    )
    overlap: bpy.props.IntProperty(  # type: ignore[valid-type]
        name="Overlap", description="Frames that two windows share", default=_DEFAULT.overlap, min=0
    )
    seed: bpy.props.IntProperty(name="Seed", default=_DEFAULT.seed, min=0)  # type: ignore[valid-type]
    target_fps: bpy.props.FloatProperty(  # type: ignore[valid-type]
        name="Frame Rate",
        description="Take every n-th frame, for about this rate; -1 for all (--target-fps)",
        default=_DEFAULT.target_fps,
        min=-1,
    )
    process_length: bpy.props.IntProperty(  # type: ignore[valid-type]
        name="Frames",
        description="At most so many; -1 for all (--process-length)",
        default=_DEFAULT.process_length,
        min=-1,
    )
    size: bpy.props.EnumProperty(  # type: ignore[valid-type]
        name="Size", description="Of the results: the model's, or the video's (--size)", items=_enum(SIZES)
    )
    exr_type: bpy.props.EnumProperty(  # type: ignore[valid-type]
        name="EXR", description="Of the numbers in EXR files (--exr-type)", items=_enum(EXR_TYPES)
    )
    first_frame: bpy.props.IntProperty(  # type: ignore[valid-type]
        name="First Frame",
        description="Of the scene, that shows the video's first; files are numbered from it too",
        default=_DEFAULT.first_frame,
        min=0,
    )
    videos: bpy.props.BoolProperty(  # type: ignore[valid-type]
        name="Also as Videos", description="Write the depth as videos too, in grey and in colours"
    )
    restart: bpy.props.BoolProperty(  # type: ignore[valid-type]
        name="Start Over", description="Throw away what an unfinished run did (--restart)"
    )
    overwrite: bpy.props.BoolProperty(  # type: ignore[valid-type]
        name="Overwrite", description="Replace files that dc-rt did not write (--overwrite)"
    )
    more: bpy.props.StringProperty(  # type: ignore[valid-type]
        name="More", description="More options of dc-rt infer, as they are typed"
    )
    load_as: bpy.props.EnumProperty(  # type: ignore[valid-type]
        name="Load as",
        items=[
            (CAMERA, "Camera", "A camera with the video behind it, and the mesh that it sees"),
            (RELIEF, "Relief", "A plane that is raised by the depth"),
            (NOTHING, "Nothing", "Leave the result on disk"),
        ],
    )
    sets_scene: bpy.props.BoolProperty(  # type: ignore[valid-type]
        name="Set Scene",
        description="Give the scene the video's size, rate and range, and a view that leaves its colours alone",
        default=True,
    )


def choices_of(scene: bpy.types.Scene) -> Choices:
    """What is chosen, with paths made absolute.

    Raises:
        Problem: a path is relative to a file that was never saved.
    """
    settings = settings_of(scene)
    values = {each.name: getattr(settings, each.name) for each in fields(Choices)}
    return Choices(**values | {name: absolute(values[name]) for name in ("video", "save_folder", "engines")})


def absolute(path: str) -> str:
    """A path as Blender has it, made absolute; raises `Problem` where that is relative to a file that is not saved."""
    if path.startswith("//") and not bpy.data.filepath:
        raise Problem(f"{path} is relative to this file, which is not saved yet; save it, or choose another path.")
    return str(Path(bpy.path.abspath(path)).absolute()) if path else ""


def settings_of(scene: bpy.types.Scene) -> Settings:
    """Those of a scene."""
    settings: Settings = scene.depthcrafter
    return settings


def configured_program() -> str:
    """What the preferences say of the program."""
    return absolute(bpy.context.preferences.addons[__package__].preferences.program)


CLASSES = (Preferences, Settings)
