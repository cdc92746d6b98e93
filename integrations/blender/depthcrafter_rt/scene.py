"""A result as objects of a scene: a camera and the mesh that it sees, or a relief."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import bpy

from .nodes import DISPARITY, FOCAL, UV_MAP, inputs_of, relief_group, scene_group
from .results import Result

_HIGHEST_RATE = 120.0
_SENSOR = 36.0  # millimetres, Blender's own
# More vertices than this make Blender slow to play; a mesh begins with fewer, and "Pixels per Vertex" has them all.
_MOST_VERTICES = 300_000


@dataclass(frozen=True)
class Loaded:
    """What was added to the scene.

    Attributes:
        mesh: the object with the modifier.
        camera: that sees it as the video does; None of a relief.
        notes: what a person should know, a sentence each.
    """

    mesh: bpy.types.Object
    camera: bpy.types.Object | None
    notes: tuple[str, ...]


def load_scene(result: Result, scene: bpy.types.Scene, first_frame: int, sets_scene: bool) -> Loaded:
    """Add a camera at the 3D cursor, with the video behind it, and the mesh that it sees.

    Args:
        result: of a run.
        scene: that it is added to.
        first_frame: of the scene, that shows the result's first.
        sets_scene: also set the scene's size, rate, range, camera and view transform.
    """
    timing = timing_of(result, first_frame)
    collection = _collection(scene, result.name)
    camera = _camera(result, timing)
    collection.objects.link(camera)
    camera.location = scene.cursor.location
    # Its picture is upright: it looks along +y, as the front view does.
    camera.rotation_euler = (1.5707963267948966, 0.0, 0.0)
    mesh = _mesh(result, scene_group(), timing, f"{result.name} depth")
    collection.objects.link(mesh)
    mesh.parent = camera
    _follow_lens(mesh, camera)
    notes = _set_up(result, timing, scene, sets_scene)
    if sets_scene or scene.camera is None:
        scene.camera = camera
    return Loaded(mesh, camera, (*_notes_of(result, timing), *notes))


def load_relief(result: Result, scene: bpy.types.Scene, first_frame: int, sets_scene: bool) -> Loaded:
    """Add a plane at the 3D cursor that stands upright and is raised by the disparity; arguments as `load_scene`'s."""
    timing = timing_of(result, first_frame)
    collection = _collection(scene, result.name)
    mesh = _mesh(result, relief_group(), timing, f"{result.name} relief")
    collection.objects.link(mesh)
    mesh.location = scene.cursor.location
    mesh.rotation_euler = (1.5707963267948966, 0.0, 0.0)
    notes = _set_up(result, timing, scene, sets_scene)
    return Loaded(mesh, None, (*_notes_of(result, timing), *notes))


@dataclass(frozen=True)
class Timing:
    """What is shown at which frame of the scene.

    Attributes:
        first_frame: of the scene, that the lists begin with.
        fps: frames a second.
        shown: for each frame of the scene, which of the result's it shows, counted from 0.
        pictures: likewise of the video with the pictures, as Blender counts its frames.
    """

    first_frame: int
    fps: float
    shown: tuple[int, ...]
    pictures: tuple[int, ...]


def timing_of(result: Result, first_frame: int) -> Timing:
    """How a result is played from a frame of the scene on."""
    fps = float(result.fps)
    if result.is_constant:
        count = tuple(range(len(result.depth)))
        return Timing(first_frame, fps, count, count)
    # Blender plays a video whose rate varies at a rate that it makes out, and finds its frames by their times.
    rate = _rate_of(result.picture) if result.picture else fps
    if not fps <= rate <= _HIGHEST_RATE:
        shown = result.shown_at(fps)
    else:
        shown, fps = result.shown_at(rate), rate
    return Timing(first_frame, fps, shown, tuple(math.ceil(result.times[index] * rate - 1e-3) for index in shown))


def _rate_of(video: Path) -> float:
    """Frames a second, as Blender counts them."""
    clip = bpy.data.movieclips.load(str(video))
    rate = float(clip.fps)
    bpy.data.movieclips.remove(clip)
    return rate


def _collection(scene: bpy.types.Scene, name: str) -> bpy.types.Collection:
    collection = bpy.data.collections.new(name)
    scene.collection.children.link(collection)
    return collection


def _camera(result: Result, timing: Timing) -> bpy.types.Object:
    data = bpy.data.cameras.new(f"{result.name} camera")
    data.sensor_fit = "HORIZONTAL"
    data.sensor_width = _SENSOR
    data.lens = FOCAL * _SENSOR
    if result.picture:
        background = data.background_images.new()
        background.image = _picture(result.picture)
        # The picture is as wide as the frame, whatever shape its pixels have.
        background.frame_method = "STRETCH"
        background.alpha = 1.0
        _play(background.image_user, timing)
        data.show_background_images = True
    return bpy.data.objects.new(data.name, data)


def _mesh(result: Result, group: bpy.types.NodeTree, timing: Timing, name: str) -> bpy.types.Object:
    mesh = bpy.data.objects.new(name, bpy.data.meshes.new(name))
    modifier = mesh.modifiers.new("Depth", "NODES")
    modifier.node_group = group
    depth = _depth(result.depth[0])
    first, last = result.first_number, result.first_number + len(result.depth) - 1
    step = 1
    while (result.width // step) * (result.height // step) > _MOST_VERTICES:
        step += 1
    values = {
        "Depth": depth,
        "Material": _material(result, timing),
        "Pixels per Vertex": step,
        "Pixels Across": result.width,
        "Pixels Down": result.height,
        "Height to Width": result.shape,
        "First File": first,
        "Last File": last,
        "File at Frame 0": first - timing.first_frame,
        "Large is Far": result.is_far_white,
    }
    known = inputs_of(group)
    for each, value in values.items():
        modifier[known[each]] = value
    if not result.is_constant:
        name = known["File at Frame 0"]
        offsets = [first + shown - timing.first_frame - index for index, shown in enumerate(timing.shown)]
        _key(mesh, path_of(modifier, "File at Frame 0"), partial(modifier.__setitem__, name), offsets, timing)
    return mesh


def path_of(modifier: bpy.types.NodesModifier, name: str) -> str:
    """The path, from its object, of an input of a modifier's group, as drivers and keyframes name it."""
    return f'modifiers["{bpy.utils.escape_identifier(modifier.name)}"]["{inputs_of(modifier.node_group)[name]}"]'


def _key(owner: Any, path: str, give: Callable[[int], None], values: Sequence[int], timing: Timing) -> None:
    """Keyframes that hold a whole number from one to the next, where it changes.

    Args:
        owner: what the animation is of.
        path: of the number from there.
        give: sets the number.
        values: one for each frame of the timing.
    """
    for index, value in enumerate(values):
        if not index or value != values[index - 1]:
            give(value)
            owner.keyframe_insert(path, frame=timing.first_frame + index)
    for curve in _curves_of(owner.id_data):
        if curve.data_path.endswith(path):
            for point in curve.keyframe_points:
                point.interpolation = "CONSTANT"


def _curves_of(owner: Any) -> Any:
    """Its animation curves, which later versions of Blender have in layers."""
    action = owner.animation_data.action
    if hasattr(action, "fcurves"):
        return action.fcurves
    return action.layers[0].strips[0].channelbag(owner.animation_data.action_slot).fcurves


def _follow_lens(mesh: bpy.types.Object, camera: bpy.types.Object) -> None:
    """Let the mesh follow the camera's focal length, by a driver that needs no Python to be allowed."""
    curve = mesh.driver_add(path_of(mesh.modifiers[0], "Focal Length"))
    driver = curve.driver
    driver.type = "SCRIPTED"
    for name in ("lens", "sensor_width"):
        variable = driver.variables.new()
        variable.name = name
        variable.type = "SINGLE_PROP"
        target = variable.targets[0]
        target.id_type = "CAMERA"
        target.id = camera.data
        target.data_path = name
    driver.expression = "lens / sensor_width"


def _depth(first: Path) -> bpy.types.Image:
    """The sequence that begins with this file, whose numbers are data and no colours."""
    image = bpy.data.images.load(str(first), check_existing=False)
    image.source = "SEQUENCE"
    image.colorspace_settings.is_data = True
    image.alpha_mode = "CHANNEL_PACKED"
    return image


def _picture(path: Path) -> bpy.types.Image:
    image = bpy.data.images.load(str(path), check_existing=True)
    image.source = "MOVIE"
    known = type(image.colorspace_settings).bl_rna.properties["name"].enum_items
    if "sRGB" in known:  # a studio's own configuration may have others, and knows what a video is
        image.colorspace_settings.name = "sRGB"
    return image


def _play(user: bpy.types.ImageUser, timing: Timing) -> None:
    user.frame_start = timing.first_frame
    # What is beyond it is the last one, before the offset as after it.
    user.frame_duration = max(len(timing.pictures), max(timing.pictures) + 1)
    user.frame_offset = 0
    user.use_auto_refresh = True
    offsets = [picture - index for index, picture in enumerate(timing.pictures)]
    if any(offsets):
        _key(user, "frame_offset", partial(setattr, user, "frame_offset"), offsets, timing)


def _material(result: Result, timing: Timing) -> bpy.types.Material:
    """Shines with the video, so that no light is needed; with the depth in grey where there is no video."""
    material = bpy.data.materials.new(result.name)
    material.use_nodes = True
    tree = material.node_tree
    tree.nodes.clear()
    emission = tree.nodes.new("ShaderNodeEmission")
    output = tree.nodes.new("ShaderNodeOutputMaterial")
    tree.links.new(emission.outputs[0], output.inputs["Surface"])
    if result.picture:
        uv = tree.nodes.new("ShaderNodeUVMap")
        uv.uv_map = UV_MAP
        texture = tree.nodes.new("ShaderNodeTexImage")
        texture.image = _picture(result.picture)
        texture.extension = "EXTEND"
        _play(texture.image_user, timing)
        tree.links.new(uv.outputs[0], texture.inputs["Vector"])
        colour = texture.outputs["Color"]
        uv.location, texture.location = (-700, 0), (-500, 0)
    else:
        attribute = tree.nodes.new("ShaderNodeAttribute")
        attribute.attribute_name = DISPARITY
        colour = attribute.outputs["Fac"]
        attribute.location = (-500, 0)
    tree.links.new(colour, emission.inputs["Color"])
    emission.location, output.location = (-200, 0), (0, 0)
    return material


def _set_up(result: Result, timing: Timing, scene: bpy.types.Scene, sets_scene: bool) -> tuple[str, ...]:
    """Set the scene up for the video, or say where it is set up for another one."""
    render = scene.render
    fps = timing.fps
    if not sets_scene:
        theirs = render.fps / render.fps_base
        if abs(theirs - fps) < 0.001 * fps:
            return ()
        return (f"The scene has {theirs:.4g} frames a second and the video {fps:.4g}, which is shown frame by frame.",)
    render.fps = max(round(fps), 1)
    render.fps_base = render.fps / fps
    render.resolution_x, render.resolution_y = result.source_width, result.source_height
    render.resolution_percentage = 100
    render.pixel_aspect_x = render.pixel_aspect_y = 1.0
    scene.frame_start = timing.first_frame
    scene.frame_end = timing.first_frame + len(timing.shown) - 1
    scene.frame_set(timing.first_frame)
    # Others change colours, and the video has its look already.
    view = scene.view_settings
    view.view_transform, view.look, view.exposure, view.gamma = "Standard", "None", 0.0, 1.0
    return ()


def _notes_of(result: Result, timing: Timing) -> tuple[str, ...]:
    notes = []
    if not result.picture:
        notes.append(f"{result.name}_input.mp4 is not there, so that the depth is shown in grey.")
    if not result.is_constant:
        notes.append(f"The video's rate varies; its frames are shown at their times, at {timing.fps:.4g} a second.")
    return tuple(notes)
