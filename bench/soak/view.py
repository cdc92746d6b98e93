"""The page of `dc-rt view` in a browser without a network: exact depth, the right pictures, little memory.

    python -m bench.soak.view

Writes a result of 300 frames at 1024x576, whose frames tell their number in their picture and in their depth, and its
page; opens that from the disk in a headless Chromium (of the system, or `--chromium PATH`), with WebGL in software;
plays all of it, compares depth, pictures and the scene with the result, and does what a person does. Estimates the
bundled example too, to see what a page takes of a disk. Writes view.png and view_phone.png into docs/, and
bench/results/view.json; exits with 1 where anything is wrong. Needs the extra `soak`.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.checks import Checks
from bench.children import Child
from bench.clips import DEMO, clip_frames
from bench.records import write_record
from bench.speed.worker import peak_memory
from dc_rt.geometry import Lens
from dc_rt.job.record import as_text
from dc_rt.media.colormap import table
from dc_rt.media.pyav import open_input
from dc_rt.media.timeline import Timeline
from dc_rt.media.write_npz import NpzWriter
from dc_rt.media.write_video import VideoWriter
from dc_rt.options import Outputs, Sampling, Source, record
from dc_rt.stored import open_stored
from dc_rt.view.page import Packing, write_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

ROOT = Path(__file__).parents[2]
NAME = 'it\'s "100%" #1 <script>alert(1)<!-- ü'
NUM_FRAMES, HEIGHT, WIDTH, FPS = 300, 576, 1024, 24
BLOCK = 64  # pixels a side, of what tells a frame's number
NUM_BITS = 9
WIDE, SMALL, PHONE = {"width": 1280, "height": 800}, {"width": 900, "height": 400}, {"width": 390, "height": 844}
MOST_HEAP, MORE_FOR_WRITING = 300e6, 30e6
SOFTWARE = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
PATIENCE_MS = 300_000


# A result whose frames can be told


def share_of(number: int) -> float:
    """Depth in the block that tells a frame's number."""
    return (number + 0.5) / NUM_FRAMES


def frame_of(number: int, random: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Depth and picture: a slope with a ball before it, as noisy as a model's, and blocks that tell the number."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    depth = 0.1 + 0.5 * y / HEIGHT
    depth += random.normal(0, 2e-4, depth.shape).astype(np.float32)
    ball = np.hypot(x - 300 - number, y - 330) < 90
    depth[ball] = 0.8
    picture = np.stack([80 + 100 * x / WIDTH, 60 + 150 * y / HEIGHT, 120 + 0 * x], axis=-1)
    picture[ball] = 230, 90, 60
    for bit in range(NUM_BITS):
        picture[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 * (number >> bit & 1)
    depth[:BLOCK, : NUM_BITS * BLOCK] = 0.5
    depth[:BLOCK, NUM_BITS * BLOCK : (NUM_BITS + 1) * BLOCK] = share_of(number)
    return depth.clip(0, 1), picture.astype(np.uint8)


def number_of(picture: NDArray[np.uint8]) -> int:
    """The frame that a picture is of: uint8 [H,W,3], as large as the result."""
    middles = picture[BLOCK // 2, BLOCK // 2 : NUM_BITS * BLOCK : BLOCK, 1]
    return sum(int(middle > 127) << bit for bit, middle in enumerate(middles))


def write_result(folder: Path) -> Path:
    """All of its files; returns its record."""
    path = folder / f"{NAME}.json"
    if path.exists():
        return path
    folder.mkdir()
    random = np.random.default_rng(0)
    timeline = Timeline.even(NUM_FRAMES, Fraction(FPS))
    with (
        NpzWriter(folder / f"{NAME}.npz", (NUM_FRAMES, HEIGHT, WIDTH)) as depths,
        VideoWriter(folder / f"{NAME}_input.mp4", timeline, HEIGHT, WIDTH) as pictures,
    ):
        for number in range(NUM_FRAMES):
            depth, picture = frame_of(number, random)
            depths.write(depth)
            pictures.write(picture)
    half = NUM_FRAMES // 2
    found = {
        "model": {"name": "none, but a drawing"},
        "demonstration": False,
        "engines": {},
        "source": {"path": f"{NAME}.mp4", "notes": ["A note with <b>markup</b>."]},
        "result": {
            "num_frames": NUM_FRAMES,
            "height": HEIGHT,
            "width": WIDTH,
            "sample_aspect_ratio": "1:1",
            "fps": FPS,
            "seconds": float(timeline.duration),
            "depth_min": 0.0,
            "depth_max": 1.0,
        },
        "options": record(Sampling(), Source(), Outputs(("npz", "input.mp4"))),
        "timings": {},
        "versions": {},
        "files": {file.name: file.stat().st_size for file in folder.iterdir()},
        "shots": [
            {"start_frame": start, "end_frame": start + half, "depth_min": 0.0, "depth_max": 1.0} for start in (0, half)
        ],
        "times": timeline.seconds(range(NUM_FRAMES)),
    }
    path.write_text(as_text(found))
    return path


# The page


def view(*arguments: str | Path) -> str:
    """Run `dc-rt view`; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "dc_rt.cli", "view", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout.strip()


def peak_of_writing(result: Path, num_frames: int) -> float:
    """In a process of its own: bytes that it has at most, while it writes the page of so many frames."""
    stored = open_stored(result)
    write_page(stored, result.with_name("part.html"), Lens(), range(num_frames), Packing(), lambda sentence: None)
    return 1e6 * peak_memory().host


def write_in_little_memory(result: Path, checks: Checks) -> dict[str, float]:
    """A few frames, and not all of them."""
    peaks = []
    for num_frames in (NUM_FRAMES // 5, NUM_FRAMES):
        with Child() as child:
            peaks.append(child.call(peak_of_writing, result, num_frames))
    few, all_of_them = peaks
    words = f"{few / 1e6:.0f} MB for {NUM_FRAMES // 5} frames, {all_of_them / 1e6:.0f} MB for {NUM_FRAMES}"
    checks.see("writing takes as much memory, however many frames", all_of_them < few + MORE_FOR_WRITING, words)
    return {"writing_mb": round(all_of_them / 1e6, 1)}


@dataclasses.dataclass
class Opened:
    """A page that is open, and all that it said and asked for."""

    page: Page
    path: Path
    console: list[str] = dataclasses.field(default_factory=list)
    requests: set[str] = dataclasses.field(default_factory=set)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", lambda message: self.console.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.console.append(f"error: {error}"))
        self.page.on("request", lambda request: self.requests.add(request.url))
        self.page.add_init_script(
            "document.addEventListener('securitypolicyviolation', (event) => "
            "console.error('policy', event.violatedDirective, event.blockedURI))"
        )
        self.page.goto(self.path.as_uri())

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.page.evaluate("viewer.status")
        return found

    def show(self, index: int) -> None:
        """Go to a frame, and wait until it is drawn."""
        before = self.status()["numDrawn"]
        self.page.evaluate("(index) => viewer.seek(index)", index)
        self.page.wait_for_function(
            "([index, before]) => viewer.status.shown === index && viewer.status.numDrawn > before", arg=[index, before]
        )

    def numbers(self, call: str, kind: type[np.generic]) -> NDArray[Any]:
        """What a call of the page's gives, an array of numbers of any kind."""
        text = self.page.evaluate(
            f"""async () => {{
                const bytes = new Uint8Array((await {call}).buffer);
                let text = "";
                for (let at = 0; at < bytes.length; at += 0x8000)
                    text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
                return btoa(text);
            }}"""
        )
        return np.frombuffer(base64.b64decode(text), kind)

    def press(self, key: str) -> None:
        self.page.locator("body").press(key)

    @property
    def foreign(self) -> set[str]:
        """What it asked for that is not in the file itself."""
        return {url for url in self.requests if url != self.path.as_uri() and not url.startswith("blob:")}


def exactness(opened: Opened, record_path: Path, checks: Checks) -> dict[str, float]:
    """Depth and pictures as the page decodes them, against the result."""
    stored = open_stored(record_path)
    wanted = {0, 1, NUM_FRAMES // 2, NUM_FRAMES // 2 + 1, NUM_FRAMES - 1}
    largest = colours = 0.0
    for number, (depth, image) in enumerate(zip(stored.depth(), stored.images(), strict=True)):
        if number not in wanted:
            continue
        found = opened.numbers(f"viewer.depth({number})", np.float32).reshape(depth.shape)
        largest = max(largest, float(np.abs(found.astype(np.float64) - depth).max()))
        picture = opened.numbers(f"viewer.picture({number})", np.uint8).reshape(*depth.shape, 4)[..., :3]
        checks.see("a frame's picture is that frame's", number_of(picture) == number, f"{number_of(picture)}")
        colours = max(colours, float(np.abs(picture.astype(int) - image).mean()))
    checks.see("depth is exact to half a step of 16 bits", largest <= 0.51 / 65535, f"{largest * 65535:.3f} / 65535")
    checks.see("pictures are what the result's are", colours < 3, f"{colours:.2f} of 255 on average")
    return {"depth_error_in_65535": round(largest * 65535, 4), "picture_error_in_255": round(colours, 3)}


def decoded(png: bytes) -> NDArray[np.uint8]:
    """A PNG file as uint8 [H,W,3]."""
    with open_input(io.BytesIO(png)) as file:
        (frame,) = file.decode(video=0)
    return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def scene_of(opened: Opened) -> NDArray[np.uint8]:
    """The scene as a person sees it, uint8 [H,W,3], brought to the result's size: the camera's view is the picture."""
    drawn = decoded(opened.page.locator("#scene").screenshot())
    height, width = drawn.shape[:2]
    scale = min(width / WIDTH, height / HEIGHT)
    y = (height / 2 + (np.arange(HEIGHT) + 0.5 - HEIGHT / 2) * scale).astype(int)
    x = (width / 2 + (np.arange(WIDTH) + 0.5 - WIDTH / 2) * scale).astype(int)
    return np.asarray(drawn[y[:, None], x], np.uint8)


def scene(opened: Opened, checks: Checks) -> None:
    """Picture and depth of the scene are of the frame that the page says, as mesh and as points."""
    colours = table("inferno").astype(int)
    opened.press("v")
    for surface in ("Mesh", "Points"):
        opened.page.get_by_role("button", name=surface, exact=True).click()
        for number in (7, NUM_FRAMES - 2):
            opened.page.get_by_role("button", name="Source", exact=True).click()
            opened.show(number)
            found = number_of(scene_of(opened))
            checks.see(f"the scene has the frame's picture ({surface.lower()})", found == number, f"{found}")
            opened.page.get_by_role("button", name="Depth", exact=True).click()
            opened.page.wait_for_timeout(400)
            pixel = scene_of(opened)[BLOCK // 2, NUM_BITS * BLOCK + BLOCK // 2].astype(int)
            level = int(np.abs(colours - pixel).sum(axis=1).argmin())
            expected = int(share_of(number) * 255)
            checks.see(f"and its depth ({surface.lower()})", abs(level - expected) <= 2, f"{level} for {expected}")
    opened.page.get_by_role("button", name="Source", exact=True).click()


def play(opened: Opened, browser: Browser, context: BrowserContext, checks: Checks) -> dict[str, float]:
    """All frames, one after the other; and what memory that takes."""
    page = opened.page
    session, whole = context.new_cdp_session(page), browser.new_browser_cdp_session()
    # A processor draws slowly, and what is late is left out.
    page.set_viewport_size(SMALL)
    page.get_by_label("Detail").select_option("4")
    page.get_by_label("Speed").select_option("0.1")
    page.get_by_role("button", name="Repeat").click()
    opened.show(0)
    before, began = opened.status()["numShown"], time.monotonic()
    page.get_by_role("button", name="Play", exact=True).click()
    heap = renderer = 0.0
    while opened.status()["shown"] < NUM_FRAMES - 1 and time.monotonic() - began < PATIENCE_MS / 1000:
        used = session.send("Runtime.getHeapUsage")
        heap = max(heap, sum(used.get(each, 0) for each in ("usedSize", "embedderHeapUsedSize", "backingStorageSize")))
        pids = [
            each["id"] for each in whole.send("SystemInfo.getProcessInfo")["processInfo"] if each["type"] == "renderer"
        ]
        renderer = max(renderer, *(private_memory(pid) for pid in pids))
        page.wait_for_timeout(300)
    seconds = time.monotonic() - began
    page.get_by_role("button", name="Play", exact=True).wait_for()  # which is "Pause" until the last has been shown
    shown = opened.status()["numShown"] - before + 1
    checks.see("all frames play, each of them shown", shown >= NUM_FRAMES, f"{shown} in {seconds:.0f} s")
    checks.see("heap stays small", 0 < heap < MOST_HEAP, f"{heap / 1e6:.0f} MB with all buffers")
    checks.see("so does the page's process", renderer < 2 * MOST_HEAP, f"{renderer / 1e6:.0f} MB")
    page.get_by_role("button", name="Repeat").click()
    page.get_by_label("Speed").select_option("1")
    page.get_by_label("Detail").select_option("1")
    page.set_viewport_size(WIDE)
    return {"heap_mb": round(heap / 1e6, 1), "renderer_mb": round(renderer / 1e6, 1), "frames_shown": shown}


def private_memory(process: int) -> float:
    """Bytes that are a process's own."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(1024.0 * int(line.split()[1]) for line in lines if line.startswith("Private_"))


def operate(opened: Opened, folder: Path, checks: Checks) -> None:
    """Keys, sliders, a screenshot; what the page says of the result; no markup of a name is run."""
    page = opened.page
    opened.show(10)
    for key, expected in (("ArrowRight", 11), ("Shift+ArrowRight", 21), ("ArrowLeft", 20), ("End", 299), ("Home", 0)):
        opened.press(key)
        page.wait_for_function("(index) => viewer.status.shown === index", arg=expected)
        checks.see(f"{key} goes to its frame", f"Frame {expected} " in page.locator("#where").inner_text())
    opened.show(NUM_FRAMES // 2)
    words = page.locator("#where").inner_text()
    checks.see("the time and the shot are said", "6.250 s" in words and "shot 2 of 2" in words, words)
    before = scene_of(opened)
    for name in ("Focal length", "Farthest", "Cut at edges"):
        page.get_by_label(name).press("ArrowRight")
    page.locator("#scene").hover()
    page.mouse.down()
    page.mouse.move(500, 300)
    page.mouse.up()
    page.wait_for_timeout(800)
    checks.see("dragging turns the scene", bool(np.abs(scene_of(opened).astype(int) - before).mean() > 1))
    opened.press("r")
    page.locator("#depth").hover()
    probed = page.locator("#probe").inner_text()
    checks.see("depth at the pointer is said", "depth 0." in probed, probed)
    with page.expect_download() as downloading:
        opened.press("s")
    saved = folder / "screenshot.png"
    downloading.value.save_as(saved)
    drawn = decoded(saved.read_bytes())
    checks.see("a screenshot is the scene", bool(drawn.std() > 10), f"{drawn.shape[1]}x{drawn.shape[0]}")
    title = page.title()
    checks.see("a name that is markup is text", NAME in title and page.locator("#name").inner_text() == NAME, title)
    page.locator("summary").click()
    about = page.locator("#about-list").inner_text()
    checks.see("what was lost is said", "16 bits: within 7.6e-06" in about and "<b>markup</b>" in about)
    nameless = page.evaluate(
        """[...document.querySelectorAll("input, select, button, canvas[tabindex]")].filter((each) =>
            !each.labels?.length && !each.ariaLabel && !each.textContent.trim()).map((each) => each.outerHTML)"""
    )
    checks.see("all that can be used has a name", not nameless, nameless or "")


def damaged(browser: Browser, page_path: Path, folder: Path, checks: Checks) -> None:
    """A file that was not copied whole, and one with a wrong byte, say so where the person looks."""
    contents = page_path.read_bytes()
    elements = [part.start() for part in _frames(contents)]
    cut, spoilt = folder / "cut.html", folder / "spoilt.html"
    cut.write_bytes(contents[: elements[3]])
    at = elements[0] + 4000
    spoilt.write_bytes(contents[:at] + (b"A" if contents[at : at + 1] != b"A" else b"B") + contents[at + 1 :])
    for path, what, words in ((cut, "was cut off", "are missing"), (spoilt, "has a wrong byte", "is damaged")):
        page = browser.new_context(viewport=WIDE, offline=True).new_page()
        page.goto(path.as_uri())
        message = page.locator("#stage-message")
        message.wait_for()
        checks.see(f"a file that {what} says so", words in message.inner_text(), message.inner_text())
        page.close()


def _frames(contents: bytes) -> Iterator[Any]:
    return re.finditer(rb'<script type="text/plain">', contents)


def phone(browser: Browser, path: Path, pictures: Path | None, checks: Checks) -> None:
    """Small, and by touch."""
    context = browser.new_context(viewport=PHONE, offline=True, has_touch=True, is_mobile=True, device_scale_factor=2)
    opened = Opened(context.new_page(), path)
    page = opened.page
    page.wait_for_function("viewer.status.numDrawn > 0")
    width = page.evaluate("document.documentElement.scrollWidth")
    checks.see("a telephone's width is enough", width <= PHONE["width"], f"{width} pixels")
    before = page.locator("#scene").screenshot()
    session = context.new_cdp_session(page)
    for kind, x in (("touchStart", 120), ("touchMove", 160), ("touchMove", 240), ("touchEnd", None)):
        session.send(
            "Input.dispatchTouchEvent", {"type": kind, "touchPoints": [] if x is None else [{"x": x, "y": 200}]}
        )
    page.wait_for_timeout(1500)
    checks.see("a finger turns the scene", page.locator("#scene").screenshot() != before)
    page.get_by_role("button", name="Reset the view").tap()
    page.get_by_role("button", name="One frame on").tap()
    page.wait_for_function("viewer.status.shown === 1")
    checks.see("buttons take a finger", True)
    if pictures:
        opened.show(18)
        page.wait_for_timeout(1000)
        page.screenshot(path=pictures / "view_phone.png")
    checks.see("the console is empty there, too", not opened.console, opened.console or "")
    context.close()


def picture(browser: Browser, path: Path, pictures: Path) -> None:
    """Of a real result: what the documentation shows."""
    opened = Opened(browser.new_context(viewport=WIDE, offline=True).new_page(), path)
    opened.page.wait_for_function("viewer.status.numDrawn > 0")
    opened.show(18)
    opened.page.wait_for_timeout(1000)
    opened.page.screenshot(path=pictures / "view.png")
    opened.page.close()


def real_result(folder: Path, height: int, width: int, num_frames: int) -> Path:
    """The bundled example at a size, estimated by the bundled engines; its record."""
    video = folder / f"demo_{width}.mp4"
    if (record_path := video.with_suffix(".json")).exists():
        return record_path
    folder.mkdir()
    with VideoWriter(video, Fraction(12), height, width, crf=12) as writer:
        for frame in clip_frames(DEMO, height, width, num_frames):
            writer.write(frame)
    # What a page takes hardly depends on the number of steps: few, where they are slow.
    quick = ["--num-denoising-steps", "1", "--window-size", "12", "--overlap", "4"] if width > 320 else []
    command = [sys.executable, "-m", "dc_rt.cli", "infer", str(video), "--save-npz", "--save-folder", str(folder)]
    subprocess.run([*command, *quick], check=True)
    return record_path


def sizes(path: Path, num_frames: int, folder: Path) -> dict[str, float]:
    """MB that 100 frames take, by the bits of depth; of their pictures alone, too."""
    found = {}
    for bits in (16, 14, 12, 10):
        page = folder / f"{path.stem}_{bits}.html"
        view(path, "--out", page, "--depth-bits", str(bits))
        elements = [each.start() for each in _frames(page.read_bytes())]
        found[f"{bits}"] = round((page.stat().st_size - elements[1]) / num_frames / 1e4, 2)
    return found


def main() -> None:
    """Do all of it, report, and write down what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs", help="folder of view.png and view_phone.png")
    parser.add_argument(
        "--work", type=Path, help="folder that keeps the results that are looked at, and has them already"
    )
    arguments = parser.parse_args()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise SystemExit("This check drives a browser with Playwright; install the extra soak.") from None
    checks = Checks()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        at = arguments.work or Path(folder)
        at.mkdir(exist_ok=True)
        demo = real_result(at / "small", 192, 320, 60)
        large = real_result(at / "large", HEIGHT, WIDTH, 12)
        taken = {"320x192": sizes(demo, 60, at), f"{WIDTH}x{HEIGHT}": sizes(large, 12, at)}
        print(f"MB that 100 frames take, by bits of depth: {json.dumps(taken)}")
        result = write_result(at / "results")
        print(view(result))
        page_path = result.with_name(f"{NAME}_view.html")
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=[*SOFTWARE])
        context = browser.new_context(viewport=WIDE, locale="en-GB", offline=True)
        began = time.monotonic()
        opened = Opened(context.new_page(), page_path)
        opened.page.wait_for_function(f"viewer.status.numPacked === {NUM_FRAMES} && viewer.status.numDrawn > 0")
        loaded = time.monotonic() - began
        checks.see("a page of 300 frames opens", True, f"{loaded:.1f} s, {page_path.stat().st_size / 1e6:.0f} MB")
        figures: dict[str, Any] = {
            "load_seconds": round(loaded, 1),
            "page_mb": round(page_path.stat().st_size / 1e6, 1),
        }
        figures |= write_in_little_memory(result, checks)
        figures |= exactness(opened, result, checks)
        scene(opened, checks)
        figures |= play(opened, browser, context, checks)
        operate(opened, at, checks)
        checks.see(
            "the console is empty: no errors, nothing against the policy", not opened.console, opened.console or ""
        )
        checks.see("nothing is asked for outside the file", not opened.foreign, opened.foreign or "")
        context.close()
        view(demo, "--out", at / "demo.html")
        damaged(browser, at / "demo.html", at, checks)
        phone(browser, at / "demo.html", arguments.pictures, checks)
        picture(browser, at / "demo.html", arguments.pictures)
        version = browser.version
        browser.close()
    write_record({"chromium": version, **figures, "mb_per_100_frames": taken, "points": checks.record}, "view")
    sys.exit(not checks.are_right)


if __name__ == "__main__":
    main()
