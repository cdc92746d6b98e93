"""Point clouds, meshes and the view from other machines, as other programs and a browser see them.

    python -m bench.soak.scene                              # viser's lowest and newest release on this Python
    python -m bench.soak.scene --python python3.11 --python python3.13

- trimesh, plyfile, meshio, Open3D and pygltflib read what `dc-rt view --ply` and `--glb` wrote as it is written, and
  Khronos's validator has nothing against the mesh.
- three.js shows the mesh through its own camera: that is the picture of the frame.
- Memory does not grow from 60 frames to 600, of point clouds and of `dc-rt view --viser`.
- `dc-rt view --viser`, in a new environment with that extra alone: in a browser it plays, stops, goes where it is
  told, and asks no other host for anything; it listens on 127.0.0.1 alone, has no button that shares it, says that its
  port is taken, and ends at SIGTERM and SIGINT.

Needs the extra `soak`, Chromium, Node.js with npm, and the package indexes. Writes mesh.png and viser.png into docs/
and bench/results/scene.json; exits with 1 where anything is wrong. For Linux. Takes five minutes.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import av
import numpy as np
from numpy.typing import NDArray

from bench.checks import Checks
from bench.clips import DEMO
from bench.programs import new_environment
from bench.records import write_record
from bench.serving.service import resident_mb
from bench.soak.memory import write_clip
from dc_rt.geometry import Lens
from dc_rt.stored import Stored, open_stored
from dc_rt.view.frames import frames_of
from dc_rt.view.glb import triangles

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[2]
VIEWING = ROOT / "bench" / "viewing"
READERS = ("trimesh>=4", "plyfile>=1", "meshio>=5", "open3d>=0.19", "pygltflib>=1.16", "pillow>=10")
NODE_PACKAGES = ("gltf-validator", "three")
ODD_NAME = "a \"b\" & 'c' #1 100% ü <script>"
QUICK = ("--max-res", "320", "--num-denoising-steps", "1", "--window-size", "32", "--overlap", "8", "--save-npz")
SMALL = ("--max-res", "64", "--num-denoising-steps", "1", "--window-size", "32", "--overlap", "8", "--save-npz")
MOST_GROWTH_MB = 40
MOST_DIFFERENCE = 4.0  # of 255, on average, of a mesh through its camera from the picture
# A browser without a GPU.
BROWSER = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
PATIENCE_SECONDS = 120.0


def dc_rt(*arguments: object, python: Path | str = sys.executable) -> subprocess.CompletedProcess[str]:
    """Run the command; RuntimeError with what it said where it fails."""
    done = subprocess.run(
        [python, "-m", "dc_rt.cli", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"dc-rt {arguments[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done


def result_of(video: Path, folder: Path, options: Sequence[str]) -> Path:
    """The record of a run."""
    dc_rt("infer", video, "--save-folder", folder, *options)
    return folder / f"{video.stem}.json"


# Files


def read_by_others(stored: Stored, folder: Path, checks: Checks) -> None:
    """Compare what other programs find in the files of a frame with the result."""
    number, lens = 7, Lens(1.2, 0.5, 20)
    flags = ["--first", number, "--last", number, "--focal", lens.focal, "--near", lens.near, "--far", lens.far]
    dc_rt("view", stored.path, "--ply", folder / "ply", "--glb", folder / "frame.glb", *flags)
    ((_, depth, image),) = frames_of(stored, range(number, number + 1))
    points = lens.points(depth, float(stored.pixel_aspect)).reshape(-1, 3)
    height, width = depth.shape
    down, across = np.mgrid[:height, :width].reshape(2, -1)
    faces = triangles(depth)
    expected: dict[str, NDArray[Any]] = {
        "points": points,
        "colours": image.reshape(-1, 3),
        "mesh.points": points,
        "mesh.faces": faces,
        "mesh.texture": image,
        "mesh.coordinates": np.stack([(across + 0.5) / width, (down + 0.5) / height], axis=1),
        "mesh.corners": points[faces],
    }
    programs = new_environment(folder / "readers", *READERS)
    paths = [folder / "ply" / f"frame_{number:04d}.ply", folder / "frame.glb", folder / "read.npz"]
    subprocess.run([*map(str, (programs / "python", VIEWING / "readers.py", *paths))], check=True)
    with np.load(folder / "read.npz") as read:
        for name in read.files:
            values, right = read[name], expected[name.partition(".")[2]]
            is_right = values.shape == right.shape
            worst = float(np.abs(values.astype(np.float64) - right).max()) if is_right else values.shape
            # Texture coordinates go through 1 - v in some of them.
            checks.see(
                f"read as it was written: {name}", is_right and worst <= 1e-6, f"{right.shape}, off by {worst:.2g}"
            )


def validated(folder: Path, checks: Checks) -> str:
    """What Khronos's validator says of the mesh; its version."""
    shutil.copy(VIEWING / "validate.cjs", folder)
    command = ["node", "validate.cjs", "frame.glb"]
    said = json.loads(subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout)
    issues = said["issues"]
    codes = [message["code"] for message in issues["messages"]]
    # That the picture's sides are no powers of two is a remark, for programs of the time before glTF 2.0.
    is_valid = issues["numErrors"] == issues["numWarnings"] == 0 and set(codes) <= {"IMAGE_NPOT_DIMENSIONS"}
    checks.see("Khronos's validator has nothing against the mesh", is_valid, codes)
    return str(said["version"])


@contextmanager
def files_served(folder: Path) -> Iterator[str]:
    """The address that a folder is served at."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            """Not said."""

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def decoded(png: bytes) -> NDArray[np.uint8]:
    """A picture as uint8 [H,W,3]."""
    with av.open(BytesIO(png), "r") as file:
        (frame,) = file.decode(video=0)
        return np.asarray(frame.to_ndarray(format="rgb24"))


def seen_by_three(stored: Stored, folder: Path, browser: Browser, pictures: Path, checks: Checks) -> None:
    """Render the mesh of the first frame through its own camera, and from aside, for the page."""
    dc_rt("view", stored.path, "--glb", folder / "frame.glb")
    shutil.copy(VIEWING / "seen.html", folder)
    (_, _, image), *_ = frames_of(stored, range(1))
    height, width = image.shape[:2]
    page = browser.new_page(viewport={"width": width, "height": height})
    with files_served(folder) as address:
        page.goto(f"{address}/seen.html")
        page.wait_for_function("document.title === 'seen'")
        shown = decoded(page.screenshot()).astype(np.float64)
        is_there = (np.abs(shown - [255, 0, 255]) > 8).any(axis=-1)
        difference = float(np.abs(shown - image)[is_there].mean())
        page.set_viewport_size({"width": 960, "height": 576})
        page.goto(f"{address}/seen.html?aside=0.35&behind=white")
        page.wait_for_function("document.title === 'seen'")
        page.screenshot(path=pictures / "mesh.png")
    page.close()
    checks.see(
        "through its camera the mesh is the picture", difference <= MOST_DIFFERENCE, f"off by {difference:.2f} of 255"
    )
    checks.see("edges alone are open", is_there.mean() > 0.85, f"{is_there.mean():.1%} of it are surface")


def peak_mb(*arguments: object) -> float:
    """The largest resident memory of a command, in MB."""
    process = subprocess.Popen([sys.executable, "-m", "dc_rt.cli", *map(str, arguments)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"dc-rt {arguments[0]} ended with {status}.")
    return usage.ru_maxrss / 1024


def memory_of_files(short: Path, long: Path, folder: Path, checks: Checks) -> None:
    """Point clouds of 60 frames and of 600."""
    few, many = (peak_mb("view", record, "--ply", folder / f"ply-{record.stem}") for record in (short, long))
    checks.see(
        "memory for point clouds does not grow from 60 frames to 600",
        many - few <= MOST_GROWTH_MB,
        f"{few:.0f} and {many:.0f} MB",
    )


# Browsers elsewhere


class Viewed:
    """A `dc-rt view --viser`, in a process of its own."""

    def __init__(self, python: Path, record: Path, *options: object) -> None:
        command = [str(python), "-m", "dc_rt.cli", "view", str(record), "--viser", "--port", "0", *map(str, options)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"on (http://[^ ]*:(\d+));", line)
        if not found:
            raise RuntimeError(f"dc-rt view --viser did not start: {line}{self.process.stdout.read()}")
        self.url, self.port = found[1], int(found[2])

    def end(self, number: signal.Signals) -> tuple[int, float, str]:
        """Send a signal: its exit status, the seconds that it took, and what it said."""
        began = time.monotonic()
        self.process.send_signal(number)
        said, _ = self.process.communicate(timeout=60)
        return self.process.returncode, time.monotonic() - began, said

    def __enter__(self) -> Viewed:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def listeners(process: int) -> set[str]:
    """Addresses that a process listens on, as hexadecimal numbers of /proc/net."""
    inodes = {
        link for path in Path(f"/proc/{process}/fd").iterdir() if (link := str(path.readlink())).startswith("socket:")
    }
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{process}/net/{name}").read_text().splitlines()[1:]
    ]
    return {line[1].partition(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in inodes}


def frame_shown(page: Page) -> int:
    """As the page says."""
    found = re.search(r"Frame (\d+), [\d.]+ s", page.inner_text("body"))
    return int(found[1]) if found else -1


def until(page: Page, condition: Any) -> bool:
    """Whether it is so in time."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        if condition():
            return True
        page.wait_for_timeout(100)
    return False


def enter(page: Page, label: str, number: str) -> None:
    """Type a number into the field of a control, which for a slider is not what its label names."""
    page.locator(f"xpath=//*[normalize-space(text())='{label}']/following::input[@type='text'][1]").fill(number)
    page.keyboard.press("Enter")


def looked_at(viewed: Viewed, browser: Browser, about: str, picture: Path, checks: Checks) -> None:
    """What a person does in the page."""
    page = browser.new_page(viewport={"width": 1100, "height": 700})
    hosts, errors = set[str](), list[str]()
    page.on("request", lambda request: hosts.add(urlparse(request.url.removeprefix("blob:")).netloc))
    page.on("websocket", lambda socket: hosts.add(urlparse(socket.url).netloc))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.set_default_timeout(1000 * PATIENCE_SECONDS)
    page.goto(viewed.url)
    checks.see(f"{about} plays", until(page, lambda: frame_shown(page) > 2), f"frame {frame_shown(page)}")
    page.get_by_label("Playing").uncheck()
    page.wait_for_timeout(3000)
    still = frame_shown(page)
    page.wait_for_timeout(1500)
    checks.see(f"{about} stops", frame_shown(page) == still, f"frame {still}")
    following = (still + 1) % 60
    page.get_by_role("button", name="Next").click()
    checks.see(
        f"{about} goes to the next frame", until(page, lambda: frame_shown(page) == following), frame_shown(page)
    )
    enter(page, "Frame", "40")
    checks.see(f"{about} goes where it is told", until(page, lambda: frame_shown(page) == 40), frame_shown(page))
    warning = page.locator("[class*=Notification-closeButton]")  # that there is no GPU here
    if warning.count():
        warning.first.click()
    page.wait_for_timeout(2000)
    page.screenshot(path=picture)
    shown = decoded(picture.read_bytes())[200:, :700]
    colours = len(np.unique((shown // 16).reshape(-1, 3), axis=0))
    checks.see(f"{about} shows points", colours > 60, f"{colours} colours")
    enter(page, "Far", "0.5")
    sentence = "must be farther than"
    checks.see(f"{about} refuses a lens that cannot be", until(page, lambda: sentence in page.inner_text("body")))
    enter(page, "Far", "20")
    checks.see(f"{about} takes one that can", until(page, lambda: sentence not in page.inner_text("body")))
    checks.see(f"{about} has no button to share it", not page.get_by_text("Share").count())
    own = urlparse(viewed.url).netloc
    checks.see(f"{about} asks no other host for anything", hosts == {own}, sorted(hosts))
    checks.see(f"{about} has no error in the console", not errors, errors[:3] or "")
    page.close()


def memory_of_server(python: Path, record: Path, browser: Browser, about: str, checks: Checks) -> None:
    """Of a server that plays 600 frames at 60 a second to a browser that keeps up with fewer."""
    with Viewed(python, record) as viewed:
        page = browser.new_page()
        page.goto(viewed.url)
        until(page, lambda: frame_shown(page) > 2)
        enter(page, "Frames a second", "60")
        found = []
        for _ in range(8):
            page.wait_for_timeout(5000)
            found.append(resident_mb(viewed.process.pid))
        growth = max(found[4:]) - max(found[:4])
        checks.see(f"{about} does not grow as it plays", growth <= MOST_GROWTH_MB, [round(each) for each in found])
        page.close()


def viewed_elsewhere(
    python: Path, record: Path, long: Path, browser: Browser, about: str, picture: Path, checks: Checks
) -> None:
    """`dc-rt view --viser` of an environment."""
    with Viewed(python, record) as viewed:
        looked_at(viewed, browser, about, picture, checks)
        found = listeners(viewed.process.pid)
        checks.see(f"{about} listens on 127.0.0.1 alone", found == {"0100007F"}, found)
        command = [str(python), "-m", "dc_rt.cli", "view", str(record), "--viser", "--port", str(viewed.port)]
        other = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        is_said = (
            other.returncode == 1 and "Address already in use" in other.stderr and len(other.stderr.splitlines()) == 1
        )
        checks.see(f"{about} says that a port is taken", is_said, other.stderr.strip()[:200])
        status, seconds, said = viewed.end(signal.SIGTERM)
        # Which viser 1.0 says in a thread of its own, now and then behind all that is kept quiet.
        said = said.strip().removesuffix("(viser) Server stopped")
        checks.see(
            f"{about} ends at SIGTERM", status == 0 and seconds < 10 and not said, f"{seconds:.1f} s {said[-300:]}"
        )
    with Viewed(python, record) as viewed:
        page = browser.new_page()
        page.goto(viewed.url)
        until(page, lambda: frame_shown(page) > 2)
        status, seconds, said = viewed.end(signal.SIGINT)
        page.close()
        checks.see(
            f"{about} ends at Ctrl-C", status == 0 and seconds < 10 and not said, f"{seconds:.1f} s {said[-300:]}"
        )
    memory_of_server(python, long, browser, about, checks)


def lowest_of(extra: str) -> list[str]:
    """Its requirements at the lowest versions that pyproject.toml states."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [line.replace(">=", "==") for line in project["optional-dependencies"][extra]]


def main() -> None:
    """Do all of it; exits with 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    parser.add_argument("--python", action="append", help="a Python to try viser with; this one unless given")
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs", help="folder of mesh.png and viser.png")
    arguments = parser.parse_args()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.exit("This check drives a browser with Playwright; install the extra soak.")
    if not shutil.which("npm"):
        sys.exit("This check runs Khronos's validator and three.js; install Node.js with npm.")

    checks = Checks()
    record: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = Path(temporary)
        subprocess.run(["npm", "install", "--silent", *NODE_PACKAGES], cwd=folder, check=True)
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=list(BROWSER))
        odd = folder / f"{ODD_NAME}.mp4"
        shutil.copy(DEMO, odd)
        result = result_of(odd, folder / "results", QUICK)
        stored = open_stored(result)
        read_by_others(stored, folder, checks)
        record["validator"] = validated(folder, checks)
        seen_by_three(stored, folder, browser, arguments.pictures, checks)
        demo = result_of(DEMO, folder / "results", QUICK)
        clips = [folder / f"{count}.mp4" for count in (60, 600)]
        for clip in clips:
            write_clip(clip, int(clip.stem), 64, 64)
        short, long = (result_of(clip, folder / "results", SMALL) for clip in clips)
        memory_of_files(short, long, folder, checks)
        for python in arguments.python or [sys.executable]:
            for which, requirements in ("newest", []), ("lowest", lowest_of("viser")):
                name = f"{Path(python).name} {which}"
                programs = new_environment(folder / name, f"{ROOT}[viser]", *requirements, python=python)
                listed = [str(programs / "pip"), "list", "--disable-pip-version-check", "--format", "json"]
                packages = json.loads(subprocess.run(listed, check=True, capture_output=True, text=True).stdout)
                version = next(each["version"] for each in packages if each["name"] == "viser")
                about = f"viser {version} on {Path(python).name}"
                picture = arguments.pictures / "viser.png" if which == "newest" else folder / "viser.png"
                viewed_elsewhere(programs / "python", demo, long, browser, about, picture, checks)
        browser.close()
    record["checks"] = checks.record
    write_record(record, "scene")
    sys.exit(not checks.are_right)


if __name__ == "__main__":
    main()
