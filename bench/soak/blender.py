"""The Blender add-on in Blender's own module, bpy: installed, driven, its scenes rendered and measured.

    python -m bench.soak.blender                            # makes an environment for each version: 0.6 GB each
    python -m bench.soak.blender --bpy-python PATH          # of an environment that has bpy; may be given several times

Beside what is measured, it makes docs/blender.png. The module bpy has no event loop: what Blender's timer would call is
called by bench/blender/inside.py. Prints what is right and what is not, exits with 1 where anything is not, and writes
bench/results/blender.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import OpenEXR
from numpy.typing import NDArray

from bench.checks import Checks
from bench.clips import DEMO
from bench.records import pyplot, write_record
from dc_rt.formats import EXR_PRESETS
from dc_rt.geometry import Lens
from dc_rt.media import read_frames
from dc_rt.stored import Stored, open_stored

ROOT = Path(__file__).parents[2]
INSIDE = ROOT / "bench" / "blender" / "inside.py"
# Both releases with long-term support that the add-on is for, and the newest; the first two were built for NumPy 1.
VERSIONS = {"4.2.23": ("numpy<2",), "4.5.15": ("numpy<2",), "5.0.1": ()}
PYTHON = "3.11"  # that bpy is built for
QUICK = ("--max-res", "64", "--num-denoising-steps", "1", "--window-size", "12", "--overlap", "4")
FIRST = 1  # frame of the scene
FRAMES = (1, 23, 60)
SECONDS = 600
UNEVEN = [33 * i for i in range(12)] + [363 + 200 * (k + 1) for k in range(12)]  # milliseconds

VARYING = {"uneven": UNEVEN, "jittered": [83 * index + 9 * (index % 3) for index in range(24)]}

Picture = NDArray[np.uint8]
Points = NDArray[np.float32]


def environment(folder: Path, version: str) -> Path:
    """Python in a new environment that has this version of bpy."""
    python = sys.executable if sys.version.startswith(f"{PYTHON}.") else shutil.which(f"python{PYTHON}")
    if not python:
        raise SystemExit(f"bpy is built for Python {PYTHON}, which is not here; install it, or give --bpy-python.")
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    found = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    what = [f"bpy=={version}", *VERSIONS[version]]
    done = subprocess.run([str(found), "-m", "pip", "install", "--quiet", "--no-cache-dir", *what], check=False)
    if done.returncode:
        raise SystemExit(f"bpy {version} could not be installed; give an environment that has it with --bpy-python.")
    return found


class Blender:
    """A Python with bpy, whose own files are in a folder, and the task that it is given."""

    def __init__(self, python: Path, folder: Path, task: Mapping[str, Any]) -> None:
        self.folder = folder
        self._python = python
        folder.mkdir(parents=True, exist_ok=True)
        self._task = folder / "task.json"
        self._task.write_text(json.dumps(task), encoding="utf-8")

    def start(self, step: str) -> subprocess.Popen[str]:
        """Start a step, with variables that would lead dc-rt astray if they reached it."""
        strange = {"PYTHONPATH": str(self.folder / "nowhere"), "PYTHONNOUSERSITE": "1"}
        resources = {"BLENDER_USER_RESOURCES": str(self.folder / "blender")}
        return subprocess.Popen(
            [str(self._python), str(INSIDE), str(self._task), step],
            env=os.environ | strange | resources,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def do(self, step: str) -> dict[str, Any]:
        """Do a step, and return what it saw."""
        process = self.start(step)
        try:
            said, _ = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise SystemExit(f"{step} has not ended in {SECONDS} s.") from None
        path = self.folder / f"{step}.json"
        if not path.exists():
            raise SystemExit(f"{step} ended with {process.returncode}:\n{said}")
        seen: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return seen

    def array(self, name: str) -> Points:
        """An array that a step wrote."""
        found: Points = np.load(self.folder / f"{name}.npy")
        return found

    def picture(self, name: str) -> Picture:
        """A picture that a step rendered: uint8 [H,W,3]."""
        with av.open(str(self.folder / f"{name}.png")) as file:
            return in_rgb(next(file.decode(video=0)))


def infer(program: Path, video: Path, folder: Path, *options: str) -> Path:
    """The `NAME.json` of a run without Blender."""
    command = [str(program), "infer", str(video), *options, "--save-folder", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=SECONDS)
    (record,) = folder.glob("*.json")
    return record


def clip(path: Path, times: Sequence[int] | None = None, aspect: Fraction = Fraction(1), length: int = 24) -> Path:
    """The demonstration clip's first frames, with other times (milliseconds) or pixels of another shape."""
    height, width = 192, 320
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=12, options={"crf": "12", "bf": "0"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, image in enumerate(read_frames(DEMO, height, width, limit=length)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = times[index] if times else index
            frame.time_base = Fraction(1, 1000 if times else 12)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def frame_of_grid(points: Points, height: int, width: int) -> Points:
    """Vertices at the pixels' centres, from the top left: float32 [H,W,3]; the border around them is left out."""
    grid = points.reshape(width + 2, height + 2, 3)[1:-1, 1:-1]
    return grid.transpose(1, 0, 2)[::-1]


def is_running(pid: int) -> bool:
    """Whether a process does anything yet."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    stat = Path("/proc", str(pid), "stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def has_ended(pid: int, seconds: float) -> bool:
    """Whether it has by then."""
    deadline = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not is_running(pid)


def difference(a: Picture, b: Picture) -> float:
    """Mean, of 255."""
    return float(np.abs(a.astype(np.float32) - b).mean())


def see_camera(blender: Blender, stored: Stored, seen: Mapping[str, Any], checks: Checks) -> None:
    """The scene of a camera: its mesh, its pictures, and what was changed in it."""
    is_sentence = seen["said"] == "60 frames of depth are done." and not seen["is_error"]
    checks.see("a run from the panel ends with its result", is_sentence, seen["said"])
    checks.see("the check of dc-rt says that it is there", seen["check"].endswith("is there and can be used."))
    shares = [int(each.partition(" %")[0]) for each in seen["shown"] if " %" in each]
    moved = shares == sorted(shares) and len(set(shares)) > 5 and any(" left" in each for each in seen["shown"])
    checks.see("progress moves, with the time left", moved, f"{len(set(shares))} shares, {seen['shown'][-2]!r}")
    checks.see("no step keeps Blender waiting", seen["longest_step"] < 1.0, f"{seen['longest_step']:.3f} s")
    scene = seen["scene"]
    right = scene["fps"] == 12 and scene["frames"] == [1, 60] and scene["size"] == [320, 192]
    checks.see("the scene has the video's rate, range and size", right, scene)
    checks.see(
        "depth is data, and the video is sRGB", seen["colour_space"] == ["Non-Color", "sRGB"], seen["colour_space"]
    )

    depth, images = list(stored.depth()), list(stored.images())
    height, width = depth[0].shape
    for frame in FRAMES:
        disparity, pixels = depth[frame - FIRST], blender.array(f"pixels_{frame}")
        error = float(np.abs(pixels[..., :3] - disparity[..., None]).max())
        checks.see("pixels are the file's numbers", error == 0, f"{error:g}")
        found = frame_of_grid(blender.array(f"vertices_{frame}"), height, width)
        error = float(np.abs(found - Lens().points(disparity, float(stored.pixel_aspect))).max())
        checks.see("vertices lie where the formula has them", error < 1e-4, f"{error:.2g}")
        rendered = blender.picture(f"camera_{frame}")
        errors = [difference(rendered, image) for image in images]
        best = int(np.argmin(errors)) + FIRST
        checks.see("frame N of the scene shows frame N of depth and video", best == frame, f"{frame} shows {best}")
        others = min(error for index, error in enumerate(errors) if index != best - FIRST)
        checks.see(
            "the camera sees the video's frame", errors[best - FIRST] < 3, f"{min(errors):.2f}, others {others:.2f}"
        )

    changed = frame_of_grid(blender.array("changed"), height, width)
    expected = Lens(2.0, 2.0, 50.0).points(depth[FRAMES[1] - FIRST], float(stored.pixel_aspect))
    error = float(np.abs(changed - expected).max())
    checks.see("near, far and the camera's focal length can be changed", error < 1e-4, f"{error:.2g}")
    (near, near_x, near_y), (far, far_x, far_y) = seen["shifts"]
    right = abs(near_x + 0.3 / near) < 1e-4 and abs(far_x + 0.3 / far) < 1e-4 and max(abs(near_y), abs(far_y)) < 1e-4
    shifts = f"at {near:.2f}: {near_x:.3f} of the width, at {far:.2f}: {far_x:.3f}"
    checks.see("beside the camera near things move more than far ones", right and near < far, shifts)
    checks.see("edges are cut where that is asked for", 0 < seen["faces"][1] < seen["faces"][0], seen["faces"])
    with OpenEXR.File(seen["distance"], separate_channels=True) as file:
        channels = {name: each for part in file.parts for name, each in part.channels.items()}
    (found,) = [each.pixels for name, each in channels.items() if ".Depth." in f".{name}"]
    expected = Lens().distance(depth[FRAMES[1] - FIRST])
    median = float(np.median(np.abs(found - expected) / expected))
    checks.see("the render's depth pass is the distance", median < 1e-3, f"median {median:.1e} of it")
    reopened = frame_of_grid(blender.array("reopened"), height, width)
    error = float(np.abs(reopened - Lens().points(depth[FRAMES[2] - FIRST], float(stored.pixel_aspect))).max())
    checks.see("a saved file shows the same when it is opened", error < 1e-4, f"{error:.2g}")


def see_relief(blender: Blender, stored: Stored, checks: Checks) -> None:
    """The plane: its mesh, and its picture from the front."""
    depth, images = list(stored.depth()), list(stored.images())
    height, width = depth[0].shape
    shape = float(height / (width * stored.pixel_aspect))
    for frame in FRAMES:
        found = frame_of_grid(blender.array(f"relief_{frame}"), height, width)
        x = 2 * ((np.arange(width) + 0.5) / width - 0.5)
        y = 2 * shape * (0.5 - (np.arange(height) + 0.5) / height)
        expected = np.stack([*np.broadcast_arrays(x[None], y[:, None]), 0.5 * depth[frame - FIRST]], axis=-1)
        error = float(np.abs(found - expected).max())
        checks.see("the relief is raised by the disparity", error < 1e-4, f"{error:.2g}")
    error = difference(blender.picture("relief_front"), images[FRAMES[1] - FIRST])
    checks.see("the relief's front is the video's frame", error < 3, f"{error:.2f} of 255")


def see_others(blender: Blender, records: Mapping[str, Path], seen: Mapping[str, Any], checks: Checks) -> None:
    """Videos that are not plain."""
    for name, record in records.items():
        stored, shown = open_stored(record), seen[name]
        depth, images = list(stored.depth()), list(stored.images())
        first, last = shown["frames"]
        # Which frame is on show at the time of each of the scene's.
        times = [(number - first) / shown["fps"] + 1e-6 for number in range(first, last + 1)]
        expected = [max(index for index, time in enumerate(stored.times) if time <= at) for at in times]
        found = [frame_of_grid(points, stored.height, stored.width) for points in blender.array(name)]
        error = max(
            float(np.abs(points - Lens().points(depth[index], float(stored.pixel_aspect))).max())
            for points, index in zip(found, expected, strict=True)
        )
        of_all = f"{len(set(expected))} of {len(depth)} frames in {last - first + 1}: {error:.2g}"
        checks.see(f"{name}: each frame is shown at its time", error < 1e-4, of_all)
        source = stored.record["source"]
        checks.see(f"{name}: the scene is as large as the video", shown["size"] == [source["width"], source["height"]])
        wrong, worst = [], 0.0
        for number in shown["rendered"]:
            index = expected[number - first]
            rendered = blender.picture(f"{name}_{number}")
            errors = [difference(rendered, resized(image, *rendered.shape[:2])) for image in images]
            worst = max(worst, errors[index])
            if int(np.argmin(errors)) != index:
                wrong.append(f"{number}: {np.argmin(errors)} for {index}")
        checks.see(
            f"{name}: the camera's background moves as the mesh does", any(shown["offsets"]) == (name in VARYING)
        )
        checks.see(f"{name}: the camera sees the video's frames", not wrong, wrong or f"{worst:.2f} of 255 at most")


def resized(picture: Picture, height: int, width: int) -> Picture:
    """By FFmpeg."""
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    return in_rgb(frame.reformat(width, height, interpolation="AREA"))


def in_rgb(frame: av.VideoFrame) -> Picture:
    """uint8 [H,W,3]."""
    return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def see_presets(blender: Blender, records: Mapping[str, Path], seen: Mapping[str, Any], checks: Checks) -> None:
    """Which files Blender's image textures read."""
    for name, record in records.items():
        depth = next(iter(open_stored(record).depth()))
        pixels = blender.array(f"preset_{name}")
        is_read = pixels.shape[:2] == depth.shape and bool((pixels[..., 0] == depth).all())
        expected = {"R", "G", "B"} <= set(EXR_PRESETS[name].channels)
        found = (
            f"{seen[name]['type']}, {'read' if is_read else 'not read'}; compositor: {', '.join(seen[name]['outputs'])}"
        )
        checks.see(
            f"--exr {name}: image textures {'read' if expected else 'do not read'} it", is_read == expected, found
        )
    checks.see("--exr blender: the compositor's image node has it as Depth", seen["blender"]["outputs"] == ["Depth"])


def see_ends(blender: Blender, task: Mapping[str, Any], checks: Checks) -> None:
    """Runs that are cancelled, killed and left."""
    seen = blender.do("cancel")
    kept = "what was done is kept, and the same run resumes it."
    checks.see(
        "cancel ends a run, which is kept", not seen["is_error"] and seen["cancelled"].endswith(kept), seen["cancelled"]
    )
    checks.see(
        "a second run at once is refused",
        "cancel it, or wait" in seen["again"] or "poll" in seen["again"],
        seen["again"],
    )
    checks.see("the same run resumes", "Resumed after frame" in seen["resumed"], seen["resumed"])
    checks.see("a program that is killed is said to be", seen["killed"].startswith("dc-rt was killed"), seen["killed"])
    checks.see("and is resumed to its end", seen["finished"] == "60 frames of depth are done.", seen["finished"])
    seen = blender.do("leave")
    for name in ("file", "disabled"):
        of = seen[name]
        right = not of["run"] and has_ended(of["pid"], 5) and "the same run resumes it" in of["said"]
        checks.see(f"the run is stopped and kept ({name})", right, of["said"])
    pid = blender.do("quit_amid")["pid"]
    ended = has_ended(pid, 15) and any(Path(task["quit"]).glob(".*.spool"))
    checks.see("the run ends with Blender, and is kept", ended)
    process = blender.start("close")
    noted = blender.folder / "pid"
    while not noted.exists() or not noted.read_text():
        if process.poll() is not None:
            raise SystemExit(f"close ended with {process.returncode}.")
        time.sleep(0.05)
    process.kill()
    process.communicate()
    ended = has_ended(int(noted.read_text()), 30) and any(Path(task["closed"]).glob(".*.spool"))
    checks.see("the run ends where Blender is killed, and is kept", ended)


def see_panels(seen: Mapping[str, Any], checks: Checks) -> None:
    """What they draw; and the strip that was taken."""
    for place in ("VIEW3D", "SEQUENCER"):
        main = f"{place}_PT_depthcrafter"
        before, amid, after = (seen[each][main] for each in ("before", "amid", "after"))
        right = "Estimate Depth" in before and "Cancel" not in before and "Cancel" in amid and "Estimate Depth" in after
        checks.see("the panel has what can be done", right, ", ".join(before))
        shown = [each for each in amid if " left" in each]
        checks.see("the panel shows how far it is", len(shown) == 1, *shown[:1])
        checks.see("the panel says how it ended", "60 frames of depth are done." in " ".join(after))
    shape = seen["after"].get("VIEW3D_PT_depthcrafter_shape", [])
    checks.see("the mesh's panel has its lens", {"Focal Length", "Near", "Far", "Cut Edges"} <= set(shape), shape)
    refused, video, first = seen["strip"]
    right = refused.startswith("The active strip is no video") and Path(video) == DEMO and first == 1001
    checks.see("the sequencer's strip gives video and first frame", right, f"{refused} {Path(video).name} at {first}")


def see_mistakes(seen: dict[str, Any], checks: Checks) -> None:
    """What is said of them."""
    checks.see("nothing is loaded by mistakes", seen.pop("objects") == 0)
    for name, said in seen.items():
        is_sentence = said.endswith(".") and "Traceback" not in said and "\n" not in said and len(said) > 20
        checks.see(f"{name}: said in one sentence", is_sentence, said)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A disk that is soon full; None where none can be made."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    is_there = sys.platform == "linux" and os.geteuid() == 0 and not subprocess.run(command, check=False).returncode
    if not is_there:
        print("No small disk can be mounted here, so that a full one is not tried.")
    try:
        yield folder if is_there else None
    finally:
        if is_there:
            subprocess.run(["umount", str(folder)], check=True)


def draw(blender: Blender, stored: Stored, path: Path) -> None:
    """Put the pictures beside one another."""
    plt = pyplot()
    index = FRAMES[1] - FIRST
    shown = {
        "the video's frame": list(stored.images())[index],
        "from its camera": blender.picture(f"camera_{FRAMES[1]}"),
        "from the side, edges cut": blender.picture("side"),
        "as a relief": blender.picture("relief"),
    }
    figure, axes = plt.subplots(2, 2, figsize=(7.2, 4.8), layout="constrained")
    for axis, (caption, picture) in zip(axes.flat, shown.items(), strict=True):
        axis.imshow(picture)
        axis.set_title(caption, fontsize=9)
        axis.set_axis_off()
    figure.savefig(path, dpi=75)
    print(path)


def check(
    python: Path, folder: Path, task: Mapping[str, Any], records: Mapping[str, Any]
) -> tuple[Blender, Stored, Checks]:
    """All of it, in one version of Blender."""
    checks = Checks()
    own = {name: str(folder / name) for name in ("cancelled", "left", "quit", "closed", "panels")}
    options = task["options"] | {"save_folder": str(folder / "results")}
    whole = dict(task) | own | {"options": options, "record": str(folder / "results" / f"{DEMO.stem}.json")}
    with small_disk(folder / "disk") as disk:
        whole["full"] = str(disk) if disk else ""
        blender = Blender(python, folder / "inside", whole)
        seen = blender.do("as_camera")
        print(f"Blender {seen['blender']}", flush=True)
        stored = open_stored(Path(whole["record"]))
        see_camera(blender, stored, seen, checks)
        blender.do("as_relief")
        see_relief(blender, stored, checks)
        see_others(blender, records["others"], blender.do("other_videos"), checks)
        see_presets(blender, records["presets"], blender.do("presets"), checks)
        see_panels(blender.do("panels"), checks)
        see_ends(blender, whole, checks)
        see_mistakes(blender.do("mistakes"), checks)
    return blender, stored, checks


def prepare(folder: Path, program: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What all versions are given: the add-on's zip, the task, and results that were made without Blender."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "integrations" / "blender" / "make_zip.py"), "--folder", str(folder)],
        check=True,
        capture_output=True,
        text=True,
    )
    others = {
        **{name: clip(folder / f"{name}.mp4", times) for name, times in VARYING.items()},
        "anamorphic": clip(folder / "anamorphic.mp4", aspect=Fraction(2)),
        "one frame": clip(folder / "one.mp4", length=1),
        "hard name": clip(folder / "it's #1, 100% <ü>.0007.mp4", length=5),
    }
    loads = ("--outputs", "exr,input.mp4", "--exr", "rgb")
    records = {
        "others": {name: infer(program, video, folder / name, *QUICK, *loads) for name, video in others.items()},
        "presets": {
            name: infer(
                program, DEMO, folder / name, *QUICK, "--process-length", "1", "--outputs", "exr", "--exr", name
            )
            for name in EXR_PRESETS
        },
    }
    turned = ("--polarity", "far-white", "--exr-type", "half", "--process-length", "5")
    records["others"]["far-white"] = infer(program, DEMO, folder / "far-white", *QUICK, *loads, *turned)
    (folder / "notes.mp4").write_text("no video at all")
    (folder / "cut.mp4").write_bytes(DEMO.read_bytes()[:2000])
    task = {
        "zip": done.stdout.strip(),
        "program": str(program),
        "options": {"video": str(DEMO), "steps": 1, "window_size": 12, "overlap": 4},
        "frames": FRAMES,
        "others": {name: str(record) for name, record in records["others"].items()},
        "presets": {
            name: str(next(record.with_suffix("").glob("*.exr"))) for name, record in records["presets"].items()
        },
        "bad": {"no video": str(folder / "notes.mp4"), "half a video": str(folder / "cut.mp4")},
        "without": str(records["presets"]["z"]),
    }
    return task, records


def without_paths(record: Mapping[str, Any], *folders: Path) -> dict[str, Any]:
    """What was seen, without the folders of the machine that it was seen on."""
    text = json.dumps(record)
    for folder in folders:
        text = text.replace(str(folder), "FOLDER")
    found: dict[str, Any] = json.loads(text)
    return found


def main() -> None:
    """Do all of it, report, and write down what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bpy-python", type=Path, action="append", help="Python of an environment that has bpy")
    parser.add_argument("--dc-rt", type=Path, default=Path(sys.executable).with_name("dc-rt"), help="the program")
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs", help="folder of blender.png")
    arguments = parser.parse_args()
    program = arguments.dc_rt.absolute()
    if not program.exists():
        raise SystemExit(f"There is no {program}; give the program with --dc-rt.")
    record: dict[str, Any] = {}
    are_right = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        task, records = prepare(folder, program)
        # One environment at a time is on the disk.
        given = arguments.bpy_python or list(VERSIONS)
        for number, each in enumerate(given):
            own = folder / str(number)
            own.mkdir()
            python = each.absolute() if isinstance(each, Path) else environment(own / "environment", each)
            blender, stored, checks = check(python, own, task, records)
            version = json.loads((blender.folder / "as_camera.json").read_text(encoding="utf-8"))["blender"]
            record[version] = checks.record
            write_record(without_paths(record, folder, ROOT, program.parent, python.parent), "blender")
            are_right = are_right and checks.are_right
            if each is given[-1]:
                draw(blender, stored, arguments.pictures / "blender.png")
            shutil.rmtree(own / "environment", ignore_errors=True)
    sys.exit(not are_right)


if __name__ == "__main__":
    main()
