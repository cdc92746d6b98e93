"""Runs in Blender's Python (the package bpy): installs the add-on, drives it as a person does, and notes what is there.

    python bench/blender/inside.py TASK.json

The module has no event loop, so that what Blender's timer would call is called here. What is seen is written down as
SEEN.json and arrays beside the task; `bench/soak/blender.py` judges it. A step is named on the command line of its own
process, since several of them end it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bpy
import numpy as np
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Vector

ADD_ON = "bl_ext.user_default.depthcrafter_rt"
SAMPLES = 4
Seen = dict[str, Any]


def of_add_on(name: str) -> Any:
    """A module of the installed add-on."""
    __import__(f"{ADD_ON}.{name}")
    return sys.modules[f"{ADD_ON}.{name}"]


def install(task: Seen) -> None:
    """As "Install from Disk" does."""
    bpy.ops.extensions.package_install_files(filepath=task["zip"], repo="user_default", enable_on_install=True)
    bpy.context.preferences.addons[ADD_ON].preferences.program = task["program"]


def choose(task: Seen, **values: Any) -> Any:
    """In an empty scene: the settings."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    install(task)
    settings = bpy.context.scene.depthcrafter
    for name, value in (task["options"] | values).items():
        setattr(settings, name, value)
    return settings


def reported(operator: Callable[..., set[str]], **arguments: Any) -> str:
    """What an operator reports as an error, which bpy raises; "" where it does none."""
    try:
        operator(**arguments)
    except RuntimeError as error:
        return str(error).removeprefix("Error: ").strip()
    return ""


def pump(until: Callable[[], bool] = lambda: False) -> tuple[list[str], float]:
    """Do as the timer does until the run has ended, or this is so: what was shown, and the longest step's seconds."""
    running = of_add_on("running")
    shown: list[str] = []
    longest = 0.0
    while True:
        began = time.monotonic()
        seconds = running.step()
        if seconds is None:
            return shown, longest
        longest = max(longest, time.monotonic() - began)
        shown.append(running.status_of(running.state.run))
        if until():
            return shown, longest
        time.sleep(0.05)


def is_beyond(share: float) -> Callable[[], bool]:
    """Whether the run has done more than this share."""
    return lambda: (of_add_on("running").state.run.share or 0) > share


def vertices(shown: bpy.types.Object) -> np.ndarray:
    """Those of an object as it is evaluated now: float32 [N,3], in its own space."""
    evaluated = shown.evaluated_get(bpy.context.evaluated_depsgraph_get())
    mesh = evaluated.to_mesh()
    found = np.empty(3 * len(mesh.vertices), np.float32)
    mesh.vertices.foreach_get("co", found)
    evaluated.to_mesh_clear()
    return found.reshape(-1, 3)


def num_faces(shown: bpy.types.Object) -> int:
    """Likewise."""
    return len(shown.evaluated_get(bpy.context.evaluated_depsgraph_get()).to_mesh().polygons)


def render(path: Path, camera: bpy.types.Object | None = None) -> None:
    """A picture by Cycles on the processor."""
    scene = bpy.context.scene
    if camera:
        scene.camera = camera
    scene.render.engine = "CYCLES"
    scene.cycles.device = "CPU"
    scene.cycles.samples = SAMPLES
    scene.cycles.use_denoising = False
    scene.render.image_settings.file_format = "PNG"
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)


def give(shown: bpy.types.Object, name: str, value: Any) -> None:
    """Change an input of its modifier, as the panel does."""
    modifier = shown.modifiers[0]
    modifier[of_add_on("nodes").inputs_of(modifier.node_group)[name]] = value
    shown.update_tag()
    bpy.context.view_layer.update()


def new_camera(name: str, location: tuple[float, float, float], at: tuple[float, float, float], lens: float) -> Any:
    """A camera that looks at a point."""
    camera = bpy.data.objects.new(name, bpy.data.cameras.new(name))
    camera.data.lens = lens
    camera.location = location
    camera.rotation_euler = (Vector(at) - Vector(location)).to_track_quat("-Z", "Y").to_euler()
    bpy.context.scene.collection.objects.link(camera)
    bpy.context.view_layer.update()
    return camera


def as_camera(task: Seen, folder: Path) -> Seen:
    """Run, load as a camera's scene, and look at it."""
    seen: Seen = {"blender": bpy.app.version_string}
    choose(task)
    seen["check"] = reported(bpy.ops.depthcrafter.check) or of_add_on("running").state.sentence
    bpy.ops.depthcrafter.infer()
    seen["shown"], seen["longest_step"] = pump()
    state = of_add_on("running").state
    seen["said"], seen["is_error"], seen["notes"] = state.sentence, state.is_error, state.notes
    scene = bpy.context.scene
    camera = scene.camera
    (mesh,) = [each for each in bpy.data.objects if each.type == "MESH"]
    seen["scene"] = {
        "fps": scene.render.fps / scene.render.fps_base,
        "frames": [scene.frame_start, scene.frame_end],
        "size": [scene.render.resolution_x, scene.render.resolution_y],
        "camera": camera.name,
        "background": camera.data.background_images[0].image.source,
    }
    depth = mesh.modifiers[0][of_add_on("nodes").inputs_of(mesh.modifiers[0].node_group)["Depth"]]
    seen["colour_space"] = [
        depth.colorspace_settings.name,
        camera.data.background_images[0].image.colorspace_settings.name,
    ]
    for frame in task["frames"]:
        scene.frame_set(frame)
        np.save(folder / f"vertices_{frame}.npy", vertices(mesh))
        render(folder / f"camera_{frame}.png")
        image = bpy.data.images.load(depth.filepath.replace(f"{scene.frame_start:04d}.exr", f"{frame:04d}.exr"))
        image.colorspace_settings.is_data = True
        pixels = np.empty(len(image.pixels), np.float32)
        image.pixels.foreach_get(pixels)
        np.save(folder / f"pixels_{frame}.npy", pixels.reshape(image.size[1], image.size[0], 4)[::-1])
    scene.frame_set(task["frames"][1])
    # A camera to the right of the first: what is near moves farther to the left than what is far.
    beside = camera.copy()
    scene.collection.objects.link(beside)
    beside.location.x += 0.3
    bpy.context.view_layer.update()
    found = vertices(mesh)
    seen["shifts"] = []
    for index in (int(found[:, 2].argmax()), int(found[:, 2].argmin())):  # the nearest, and the farthest
        place = mesh.matrix_world @ Vector(found[index].tolist())
        before, after = (world_to_camera_view(scene, each, place) for each in (camera, beside))
        seen["shifts"].append([float(-found[index, 2]), after.x - before.x, after.y - before.y])
    render(folder / "beside.png", beside)
    scene.camera = camera
    # What a person changes afterwards.
    give(mesh, "Near", 2.0)
    give(mesh, "Far", 50.0)
    camera.data.lens = 72.0
    bpy.context.view_layer.update()
    np.save(folder / "changed.npy", vertices(mesh))
    give(mesh, "Near", 1.0)
    give(mesh, "Far", 10.0)
    camera.data.lens = 36.0
    before = num_faces(mesh)
    give(mesh, "Cut Edges", 0.05)
    seen["faces"] = [before, num_faces(mesh)]
    render(folder / "side.png", new_camera("side", (2.2, -1.0, 1.9), (-0.5, 3.2, -0.4), 30.0))
    give(mesh, "Cut Edges", 0.0)
    scene.camera = camera
    seen["distance"] = distances(folder / "distance.exr")
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "saved.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(folder / "saved.blend"))
    bpy.context.scene.frame_set(task["frames"][2])
    (mesh,) = [each for each in bpy.data.objects if each.type == "MESH"]
    np.save(folder / "reopened.npy", vertices(mesh))
    return seen


def distances(path: Path) -> str:
    """The render's own depth pass, in a file."""
    scene = bpy.context.scene
    bpy.context.view_layer.use_pass_z = True
    settings = scene.render.image_settings
    if hasattr(settings, "media_type"):
        settings.media_type = "MULTI_LAYER_IMAGE"
    settings.file_format = "OPEN_EXR_MULTILAYER"
    settings.color_depth = "32"
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)
    if hasattr(settings, "media_type"):
        settings.media_type = "IMAGE"
    settings.file_format = "PNG"
    return str(path)


def as_relief(task: Seen, folder: Path) -> Seen:
    """Load what is there as a relief, and look at it."""
    choose(task)
    scene = bpy.context.scene
    bpy.ops.depthcrafter.load(filepath=task["record"], load_as="RELIEF")
    (mesh,) = [each for each in bpy.data.objects if each.type == "MESH"]
    for frame in task["frames"]:
        scene.frame_set(frame)
        np.save(folder / f"relief_{frame}.npy", vertices(mesh))
    scene.frame_set(task["frames"][1])
    front = new_camera("front", (0.0, -3.0, 0.0), (0.0, 0.0, 0.0), 36.0)
    front.data.type = "ORTHO"
    front.data.ortho_scale = 2.0
    render(folder / "relief_front.png", front)
    render(folder / "relief.png", new_camera("side", (-1.7, -1.9, 0.9), (0.0, -0.15, 0.0), 42.0))
    return {"said": of_add_on("running").state.sentence}


def other_videos(task: Seen, folder: Path) -> Seen:
    """Results of videos that are not plain, loaded as a camera's scene: what is shown at each frame."""
    seen: Seen = {}
    for name, record in task["others"].items():
        choose(task, first_frame=1)
        bpy.ops.depthcrafter.load(filepath=record, load_as="CAMERA")
        scene = bpy.context.scene
        (mesh,) = [each for each in bpy.data.objects if each.type == "MESH"]
        user = scene.camera.data.background_images[0].image_user
        found, offsets = [], []
        scene.render.resolution_percentage = 50
        for frame in range(scene.frame_start, scene.frame_end + 1):
            scene.frame_set(frame)
            found.append(vertices(mesh))
            offsets.append(user.frame_offset)
            if frame % 4 == 1 or frame == scene.frame_end:
                render(folder / f"{name}_{frame}.png")
        np.save(folder / f"{name}.npy", np.stack(found))
        seen[name] = {
            "frames": [scene.frame_start, scene.frame_end],
            "offsets": offsets,
            "rendered": [each for each in range(1, scene.frame_end + 1) if each % 4 == 1 or each == scene.frame_end],
            "size": [scene.render.resolution_x, scene.render.resolution_y],
            "fps": scene.render.fps / scene.render.fps_base,
            "notes": of_add_on("running").state.notes,
        }
    return seen


def presets(task: Seen, folder: Path) -> Seen:
    """How Blender's image textures, and its compositor, see the files of each preset of EXR."""
    seen: Seen = {}
    for name, path in task["presets"].items():
        image = bpy.data.images.load(path)
        image.colorspace_settings.is_data = True
        pixels = np.empty(len(image.pixels), np.float32)
        if pixels.size:
            image.pixels.foreach_get(pixels)
        np.save(folder / f"preset_{name}.npy", pixels.reshape(image.size[1], image.size[0], image.channels)[::-1])
        scene = bpy.context.scene
        if hasattr(scene, "compositing_node_group"):
            tree = bpy.data.node_groups.new("presets", "CompositorNodeTree")
        else:
            scene.use_nodes = True
            tree = scene.node_tree
        node = tree.nodes.new("CompositorNodeImage")
        node.image = image
        if node.has_layers:
            node.layer = node.bl_rna.properties["layer"].enum_items[0].identifier if not node.layer else node.layer
        seen[name] = {"type": image.type, "outputs": [each.name for each in node.outputs if each.enabled]}
    return seen


def cancel(task: Seen, _folder: Path) -> Seen:
    """Cancel a run, run again, and kill the program of a third one."""
    choose(task, save_folder=task["cancelled"], max_res=128)
    running = of_add_on("running")
    bpy.ops.depthcrafter.infer()
    pump(is_beyond(0.4))
    again = reported(bpy.ops.depthcrafter.infer)
    bpy.ops.depthcrafter.cancel()
    pump()
    seen: Seen = {"again": again, "cancelled": running.state.sentence, "is_error": running.state.is_error}
    bpy.ops.depthcrafter.infer()
    pump(lambda: any("Resumed" in note for note in running.state.run.notes))
    seen["resumed"] = running.state.run.notes[-1]
    os.kill(running.state.run.pid, signal.SIGKILL)
    pump()
    seen["killed"] = running.state.sentence
    bpy.ops.depthcrafter.infer()
    pump()
    seen["finished"] = running.state.sentence
    return seen


def leave(task: Seen, _folder: Path) -> Seen:
    """Open another file, and disable the add-on, amid a run."""
    seen: Seen = {}
    for name, do in (
        ("file", lambda: bpy.ops.wm.read_homefile(use_empty=True)),
        ("disabled", lambda: bpy.ops.preferences.addon_disable(module=ADD_ON)),
    ):
        choose(task, save_folder=task["left"], restart=True, max_res=128)
        running = of_add_on("running")
        bpy.ops.depthcrafter.infer()
        pump(is_beyond(0.2))
        pid = running.state.run.pid
        do()
        seen[name] = {"said": running.state.sentence, "pid": pid, "run": running.state.run is not None}
    return seen


def close(task: Seen, folder: Path) -> Seen:
    """Be killed amid a run: this tells the process's number, and goes on until it is."""
    choose(task, save_folder=task["closed"], max_res=128)
    bpy.ops.depthcrafter.infer()
    running = of_add_on("running")
    pump(is_beyond(0.2))
    (folder / "pid").write_text(str(running.state.run.pid))
    pump()
    return {}


def quit_amid(task: Seen, folder: Path) -> Seen:
    """End as Blender does when it is closed amid a run."""
    choose(task, save_folder=task["quit"], max_res=128)
    bpy.ops.depthcrafter.infer()
    running = of_add_on("running")
    pump(is_beyond(0.2))
    return {"pid": running.state.run.pid}


class Layout:
    """Takes what a panel draws, where no window is, and refuses what Blender's own would: names that are not there."""

    def __init__(self, drawn: list[str]) -> None:
        self.drawn = drawn

    def prop(self, data: Any, name: str, text: str = "", **_: Any) -> None:
        if name.startswith('["'):
            data[name[2:-2]]
        else:
            text = text or data.bl_rna.properties[name].name
        self.drawn.append(text)

    def operator(self, name: str, text: str = "", icon: str = "NONE") -> None:
        bpy.types.UILayout.bl_rna.functions["operator"].parameters["icon"].enum_items[icon]
        module, _, function = name.partition(".")
        self.drawn.append(text or getattr(getattr(bpy.ops, module), function).get_rna_type().name)

    def label(self, text: str) -> None:
        self.drawn.append(text)

    def progress(self, factor: float, type: str, text: str) -> None:
        bpy.types.UILayout.bl_rna.functions["progress"].parameters["type"].enum_items[type]
        self.drawn.append(text)

    def column(self, **_: Any) -> Layout:
        return Layout(self.drawn)

    row = column


def drawn(shown: bpy.types.Object | None) -> dict[str, list[str]]:
    """What each panel draws, with an object being the active one."""
    found: dict[str, list[str]] = {}
    region = SimpleNamespace(width=300)
    context = SimpleNamespace(scene=bpy.context.scene, object=shown, region=region)
    for panel in of_add_on("panels").CLASSES:
        if getattr(panel, "poll", lambda _: True)(context):
            itself = SimpleNamespace(layout=Layout(found.setdefault(panel.bl_idname, [])), **vars(panel))
            panel.draw(itself, context)
    return found


def panels(task: Seen, folder: Path) -> Seen:
    """What the panels show before, amid and after a run, and the video of a strip of the sequencer."""
    settings = choose(task, save_folder=task["panels"], max_res=64)
    seen: Seen = {"before": drawn(None)}
    bpy.ops.depthcrafter.infer()
    pump(is_beyond(0.2))
    seen["amid"] = drawn(None)
    pump()
    (mesh,) = [each for each in bpy.data.objects if each.type == "MESH"]
    seen["after"] = drawn(mesh)
    seen["strip"] = [reported(bpy.ops.depthcrafter.take_strip)]
    editor = bpy.context.scene.sequence_editor_create()
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    editor.active_strip = strips.new_movie("clip", task["options"]["video"], 1, 1001)
    settings.video = ""
    bpy.ops.depthcrafter.take_strip()
    seen["strip"] += [settings.video, settings.first_frame]
    return seen


def mistakes(task: Seen, folder: Path) -> Seen:
    """What a person can get wrong, and what is said of it."""
    seen: Seen = {}
    settings = choose(task, video="")
    seen["no video chosen"] = reported(bpy.ops.depthcrafter.infer)
    settings.video = "//clip.mp4"
    seen["relative to an unsaved file"] = reported(bpy.ops.depthcrafter.infer)
    settings.video = task["options"]["video"]
    preferences = bpy.context.preferences.addons[ADD_ON].preferences
    for name, path in (("no program", str(folder / "none")), ("no program of ours", sys.executable)):
        preferences.program = path
        seen[name] = reported(bpy.ops.depthcrafter.check)
    preferences.program = str(folder / "none")
    seen["run without it"] = reported(bpy.ops.depthcrafter.infer)
    preferences.program = sys.executable
    bpy.ops.depthcrafter.infer()
    pump()
    seen["run of another program"] = of_add_on("running").state.sentence
    preferences.program = task["program"]
    for name, path in {"no such video": str(folder / "none.mp4"), **task["bad"]}.items():
        settings.video = path
        bpy.ops.depthcrafter.infer()
        pump()
        seen[name] = of_add_on("running").state.sentence
    if task["full"]:
        settings.video, settings.save_folder = task["options"]["video"], task["full"]
        bpy.ops.depthcrafter.infer()
        pump()
        seen["a full disk"] = of_add_on("running").state.sentence
    seen["a result without colours"] = reported(bpy.ops.depthcrafter.load, filepath=task["without"], load_as="CAMERA")
    seen["no result"] = reported(bpy.ops.depthcrafter.load, filepath=task["options"]["video"], load_as="CAMERA")
    seen["objects"] = len(bpy.data.objects)
    return seen


STEPS = {
    each.__name__: each
    for each in (as_camera, as_relief, other_videos, presets, cancel, leave, close, quit_amid, panels, mistakes)
}


def main() -> None:
    """Do a step of a task."""
    path, name = Path(sys.argv[1]), sys.argv[2]
    seen = STEPS[name](json.loads(path.read_text(encoding="utf-8")), path.parent)
    (path.parent / f"{name}.json").write_text(json.dumps(seen), encoding="utf-8")


if __name__ == "__main__":
    main()
