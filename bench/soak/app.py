"""The page of `dc-rt app` in a browser: what a person does with it, from the first video to the end of the app.

    python -m bench.soak.app

Starts the app and a headless Chromium (of the system, or `--chromium PATH`): sends a video, watches it, cancels it,
runs it again, plays what came of it, compares every download with what `dc-rt infer` writes, sends what is no video or
too much, closes tabs, opens others, records with a camera that Chromium plays, asks for what is not the page's, and
ends the app in all ways. Neither the app nor the page may ask another host for anything. Writes app.png and
app_phone.png into docs/ and bench/results/app.json; exits with 1 where anything is wrong. Needs the extras `app` and
`soak`.
"""

from __future__ import annotations

import argparse
import http.client
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
import zipfile
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, urlparse

from bench.checks import Checks
from bench.clips import DEMO
from bench.processes import children_of, family_of
from bench.records import write_record
from dc_rt.options import flags_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

ROOT = Path(__file__).parents[2]
BALLS = DEMO.with_name("balls.mp4")
MARKUP = "ü 'q' #1 100% ${1+1} {{value}} <img src=x onerror=document.title='run'>.mp4"
QUICK = {"max_res": "64", "steps": "1", "window_size": "12", "overlap": "4"}
# Long enough to be watched, cancelled and resumed; with windows this short, something is kept soon.
SLOW = {"max_res": "320", "steps": "2", "window_size": "12", "overlap": "4"}
OUTPUTS = ("npz", "exr", "png")
WIDE, PHONE = {"width": 1280, "height": 1000}, {"width": 390, "height": 844}
PATIENCE_MS = 120_000
MOST_FRAMES, MOST_BYTES = 70, 2_000_000
PASSWORD = "a password of 26 signs".replace(" ", "-")
# What Gradio's own client says where it closes a stream, and where a page is left amid a request.
GRADIO_SAYS = ("Method not implemented.", "AbortError: signal is aborted without reason")
# What a browser says by itself of answers that are no success; the page shows their sentences.
REFUSALS = ("status of 413", "status of 404", "net::ERR_ABORTED", "net::ERR_INCOMPLETE")
# Python looks for a module of this name at its start: every name that is looked up and every address is put down.
AUDIT = """
import os, sys
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        asked = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
        with open(os.environ["DC_RT_AUDIT"], "a") as file:
            file.write(f"{event} {asked!r}\\n")
sys.addaudithook(hook)
"""


class App:
    """A `dc-rt app` in a process of its own, that works in `folder`."""

    def __init__(self, folder: Path, audit: Path, *options: str, **environment: str) -> None:
        self.folder = folder
        self.log: list[str] = []
        self.url = ""
        self._options = options
        (audit / "sitecustomize.py").write_text(AUDIT)
        paths = [str(audit), os.environ.get("PYTHONPATH", "")]
        self._environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "DC_RT_AUDIT": str(audit / "asked")}
        self._environment |= environment
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """Of its process, while it is running."""
        assert self._process is not None
        return self._process.pid

    @property
    def own(self) -> list[Path]:
        """What apps have in the folder."""
        return sorted(self.folder.glob(".dc-rt-app-*"))

    def start(self) -> Self:
        """Return once it listens; raises RuntimeError with what it printed where it does not."""
        command = [
            sys.executable,
            "-m",
            "dc_rt.cli",
            "app",
            "--folder",
            str(self.folder),
            "--port",
            "0",
            "--no-browser",
        ]
        self._process = subprocess.Popen(
            [*command, *self._options],
            env=os.environ | self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        listens = threading.Event()
        threading.Thread(target=self._read, args=(self._process, listens), daemon=True).start()
        until = time.monotonic() + 120
        while not listens.wait(0.05):
            if self._process.poll() is not None or time.monotonic() > until:
                self.end(signal.SIGKILL)
                raise RuntimeError("dc-rt app did not start: " + " ".join(self.log[-20:]))
        return self

    def end(self, how: int) -> int:
        """Send it a signal; its exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(how)
        return self._process.wait(60)

    def ask(self, method: str, path: str, body: str = "", **headers: str) -> tuple[int, bytes]:
        """Send a bare request; status and body of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", urlparse(self.url).port or 0, timeout=30)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body or None, sent)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _read(self, process: subprocess.Popen[str], listens: threading.Event) -> None:
        """All that it prints is read, so that it never waits for a reader."""
        assert process.stdout is not None
        for line in process.stdout:
            self.log.append(line.rstrip())
            if found := re.search(r"The app is at http://[^ ;]*:(\d+)", line):
                self.url = f"http://127.0.0.1:{found[1]}"
                listens.set()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(signal.SIGKILL)


class Person:
    """Somebody with a browser of their own, and a tab."""

    def __init__(self, browser: Browser, app: App, checks: Checks, said: list[str], hosts: set[str]) -> None:
        self.context: BrowserContext = browser.new_context(
            viewport=WIDE,
            locale="en-GB",
            permissions=["camera", "microphone"],
        )
        self.context.set_default_timeout(PATIENCE_MS)
        self.app = app
        self.checks = checks
        self._said = said
        self._hosts = hosts
        self._is_leaving = False
        self.page = self.open()

    def open(self) -> Page:
        """Another tab; it is the one that is used from now on."""
        page = self.page = self.context.new_page()
        page.on("console", lambda message: self._note(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self._note(f"error: {error}"))
        page.on("request", lambda request: self._hosts.add(urlparse(request.url).netloc))
        page.goto(self.app.url)
        page.locator("#run").wait_for()
        return page

    def reload(self) -> None:
        """As with the browser's button."""
        self._is_leaving = True
        self.page.reload()
        self._is_leaving = False
        self.page.locator("#run").wait_for()

    def close(self) -> None:
        """Close the tab."""
        self._is_leaving = True
        self.page.close()
        self._is_leaving = False

    def _note(self, line: str) -> None:
        """Not what is said of requests that were broken off as the page was left: nobody sees it."""
        if not self._is_leaving:
            self._said.append(line)

    def choose(self, options: dict[str, str], outputs: Sequence[str] = ()) -> None:
        """Set options, and check more outputs, as a person does."""
        page = self.page
        for title in ("What is written", "Windows and noise"):
            panel = page.get_by_role("button", name=title)
            if not page.locator("#option-outputs" if title == "What is written" else "#option-overlap").is_visible():
                panel.click()
        for name, value in options.items():
            field = page.locator(f"#option-{name} input")
            field.fill(value)
            field.blur()
        for name in outputs:
            page.locator("#option-outputs label", has_text=re.compile(rf"^\s*{name} ")).locator("input").check()

    def send(self, path: Path, name: str = "") -> None:
        """Choose a file; return once the page shows it."""
        if self.page.locator("#video button[aria-label=Clear]").is_visible():
            self.page.locator("#video button[aria-label=Clear]").click()
        content = {"name": name or path.name, "mimeType": "video/mp4", "buffer": path.read_bytes()}
        self.page.locator("#video input[type=file]").set_input_files(content)

    def shown(self) -> None:
        """Wait for the video that was sent to be there."""
        self.page.locator("#video video").wait_for()
        self.page.wait_for_timeout(300)

    def run(self) -> None:
        """Press the button."""
        self.page.locator("#run").click()

    def until(self, status: str, name: str = "demo.mp4") -> None:
        """Wait for a video to be shown, and to be there."""
        title = self.page.locator("h3", has_text=name)
        self.page.locator(f"#card [data-status={status}]", has=title).wait_for()

    def words(self) -> str:
        """Of the card."""
        return " | ".join(filter(None, self.page.locator("#card").inner_text().split("\n")))

    def problem(self, place: str = "#problem") -> str:
        """What is said to be wrong, beside the results or at the video."""
        found = self.page.locator(f"{place} p").first
        found.wait_for()
        words: str = found.inner_text()
        return words

    def shares(self, most: float = 2.0) -> list[float]:
        """What the progress bar shows, until there is as much or the run has ended."""
        found: list[float] = []
        while self.page.locator("#card [data-status=running]").count():
            share = self.page.evaluate("document.querySelector('#card progress')?.value")
            if share is not None and (not found or share != found[-1]):
                found.append(share)
            if found and found[-1] >= most:
                break
            self.page.wait_for_timeout(50)
        return found


def watch_cancel_resume(person: Person) -> None:
    """A video is sent, watched, cancelled, and run again to its end."""
    page, checks, app = person.page, person.checks, person.app
    person.send(DEMO)
    person.shown()
    person.choose(SLOW, OUTPUTS)
    person.run()
    person.until("running")
    shares = person.shares(most=0.55)
    moved = len(shares) > 4 and shares == sorted(shares)
    checks.see("progress moves forward", moved, f"{len(shares)} values up to {shares[-1]:.2f}" if shares else "none")
    words = person.words()
    checks.see("frames, stage and time left are shown", bool(re.search(r"\d+ of 60 frames .* left", words)), words)
    workers = children_of(app.pid)
    began = time.monotonic()
    page.locator("#cancel").click()
    while children_of(app.pid) and time.monotonic() - began < 10:
        time.sleep(0.02)
    seconds = time.monotonic() - began
    checks.see("cancel ends the process at once", bool(workers) and seconds <= 3.0, f"{seconds:.2f} s after the click")
    person.until("cancelled")
    checks.see("what was done is kept, and said to be", "Resume goes on from there" in person.words(), person.words())
    person.run()
    person.until("finished")
    checks.see("run again it is resumed, and said to be", "Resumed after frame" in person.words(), person.words())


def play(person: Person) -> None:
    """Source and depth play together, in colours and in grey."""
    page, checks = person.page, person.checks
    player = page.locator("#results .player")
    for name in ("Grey", "Colours"):
        player.get_by_role("button", name=name).click()
        page.wait_for_timeout(1500)
        both = []
        for _ in range(2):
            both.append(player.locator("video").evaluate_all("all => all.map((each) => each.currentTime)"))
            page.wait_for_timeout(700)
        errors = player.locator("video").evaluate_all("all => all.map((each) => each.error?.message ?? '')")
        moved = len(both[0]) == 2 and all(a != b for a, b in zip(*both, strict=True)) and not any(errors)
        checks.see(f"source and depth play ({name.lower()})", moved, f"{both[0]} s, then {both[1]} s {''.join(errors)}")
        apart = abs(both[1][0] - both[1][-1])
        checks.see("they are in step", apart < 0.1, f"{apart:.3f} s apart")


def download(person: Person, folder: Path) -> None:
    """Every file that is offered is what `dc-rt infer` writes with the same options."""
    flags = [word for name, value in SLOW.items() for word in (flags_of(name)[0], value)]
    outputs = ",".join(("depth.mp4", "vis.mp4", "input.mp4", *OUTPUTS))
    command = [
        sys.executable,
        "-m",
        "dc_rt.cli",
        "infer",
        str(DEMO),
        "--save-folder",
        str(folder),
        "--outputs",
        outputs,
        *flags,
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    expected = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    offered: set[str] = set()
    for link in person.page.locator(".dc-files a").all():
        with person.page.expect_download() as downloading:
            link.click()
        name, content = downloading.value.suggested_filename, downloading.value.path().read_bytes()
        if name.endswith(".zip"):
            archive = zipfile.ZipFile(BytesIO(content))
            files = {each: archive.read(each) for each in archive.namelist()}
        else:
            files = {name: content}
        offered |= set(files)
        if name == "demo.json":
            same = set(json.loads(content)) == set(json.loads(expected[name].read_bytes()))
        else:
            same = all(each in expected and expected[each].read_bytes() == files[each] for each in files)
        person.checks.see(f"{name} is as dc-rt infer writes it", same, f"{len(files)} files, {len(content)} bytes")
    person.checks.see("every output is offered", offered == set(expected), sorted(offered ^ set(expected))[:5])


def refuse(person: Person, folder: Path) -> None:
    """What cannot be run is refused before work, in one sentence where the person looks."""
    page, checks = person.page, person.checks

    def see(what: str, sentence: str, expected: str) -> None:
        one = sentence.endswith(".") and "\n" not in sentence and "Traceback" not in sentence
        checks.see(what, one and expected in sentence, sentence)

    page = person.open()
    person.run()
    see("without a video it is said so", person.problem(), "no video yet")
    text = folder / "notes.mp4"
    text.write_text("no video at all")
    person.send(text)
    see(
        "a file that is no video is refused as it comes",
        person.problem("#about-video"),
        "is no video of a kind that is taken",
    )
    person.run()
    page.locator("#problem p", has_text="is no video").wait_for()
    long = folder / "long.mp4"
    write_long(long)
    person.send(long)
    person.shown()
    person.choose(QUICK)
    person.run()
    page.locator("#problem p", has_text="frames estimated").wait_for()
    see("one with too many frames is refused", page.locator("#problem p").inner_text(), f"at most {MOST_FRAMES}")
    large = folder / "large.mp4"
    large.write_bytes(DEMO.read_bytes() + bytes(MOST_BYTES))
    person.send(large)
    said = page.get_by_text(re.compile("maximum allowed size")).first
    said.wait_for()
    checks.see("one that is too large is refused", True, said.inner_text())
    person.reload()
    person.send(DEMO)
    person.shown()
    person.choose(QUICK | {"overlap": "99"})
    person.run()
    see("a wrong option is refused in the page's words", person.problem(), "“Overlap of windows” must be smaller")
    person.send(DEMO, MARKUP)
    person.shown()
    person.choose(QUICK)
    person.run()
    person.until("finished", "ü 'q' #1 100%")
    title = page.locator("#card h3").inner_text()  # Gradio leaves out some signs
    checks.see("a name that is markup is shown as text", title.endswith("='run'.mp4") and page.title() != "run", title)


def record(person: Person) -> None:
    """With a camera, which Chromium plays."""
    page = person.open()
    page.get_by_role("button", name="Capture from camera").click()
    page.get_by_text(re.compile("Click to Access Webcam", re.IGNORECASE)).click()
    button = page.locator("#video .button-wrap button").first
    button.click()
    page.wait_for_timeout(4000)
    button.click()
    person.shown()
    person.choose(QUICK)
    person.run()
    person.until("finished", ".webm")
    person.checks.see("a recording of the camera is run", True, person.words())


def several(person: Person, other: Person) -> None:
    """A tab that is closed cancels nothing; another browser waits, sees its place, and nothing of the first one."""
    checks = person.checks
    person.open()
    person.send(DEMO, "room.mp4")
    person.shown()
    person.choose(SLOW)
    person.run()
    person.until("running", "room.mp4")
    checks.see("another browser sees no videos of this one", not other.page.locator("#card [data-job]").count())
    job = person.page.locator("#card [data-job]").get_attribute("data-job")
    person.close()
    other.page.get_by_role("button", name="balls").click()
    other.shown()
    other.choose(QUICK)
    other.run()
    other.until("queued", "balls.mp4")
    checks.see("one that waits sees its place", "1 video before it" in other.words(), other.words())
    person.open()
    person.until("running", "room.mp4")
    checks.see("the video of a tab that was closed goes on, in the next one", True, person.words())
    person.until("finished", "room.mp4")
    other.until("finished", "balls.mp4")
    checks.see("then comes the one that waited", True, other.words())
    link = person.page.locator(".dc-files a").first.get_attribute("href") or ""
    statuses = [each.context.request.get(f"{person.app.url}{link}").status for each in (person, other)]
    checks.see("its files are for its browser alone", statuses == [200, 404], f"{statuses} of {job}")


def attack(person: Person) -> None:
    """What the page does not need is not there, and no path leads out of the app's folder."""
    app, checks = person.app, person.checks
    upload = next((app.own[0] / "uploads").glob("*/*.mp4"))
    paths = [
        f"/gradio_api/file={ROOT}/pyproject.toml",
        f"/gradio_api/file={app.own[0]}/jobs/lock",
        f"/gradio_api/file={app.own[0]}/uploads/../jobs/lock",
        f"/gradio_api/file={app.own[0]}/uploads/%2e%2e/%2e%2e/../../../../etc/passwd",
        "/gradio_api/file=http://example.org/",
        "/gradio_api/proxy=http://example.org/",
        "/gradio_api/custom_component/x/client/y/z",
        "/gradio_api/openapi.json",
        "/monitoring",
        "/openapi.json",
        "/docs",
        "/results/x/..%2f..%2flock",
        "/static/..%2f..%2froutes.py",
        "/assets/../routes.py",
        "/page/..%2fgate.py",
    ]
    found = {path: app.ask("GET", path)[0] for path in paths}
    wrong = [f"{path}: {status}" for path, status in found.items() if status not in (400, 403, 404)]
    checks.see("no address leads to what is not the page's", not wrong, wrong or f"{len(paths)} were tried")
    posts = (
        "/gradio_api/run/predict",
        "/gradio_api/call/x",
        "/gradio_api/component_server",
        "/gradio_api/process_recording",
    )
    found = {path: app.ask("POST", path)[0] for path in posts}
    checks.see("nothing can be called but by the page", set(found.values()) == {404}, found)
    fetch = {"path": "http://elsewhere.example.org/clip.mp4", "meta": {"_type": "gradio.FileData"}}
    calls = json.loads(app.ask("GET", "/config")[1])["dependencies"]
    statuses = set()
    for call in calls:
        body = {"data": [fetch] * len(call["inputs"]), "fn_index": call["id"], "session_hash": "attack"}
        takes_data = bool(call["inputs"])
        status, _ = app.ask("POST", "/gradio_api/queue/join", json.dumps(body), Content_Type="application/json")
        statuses |= {status} if takes_data else set()
    checks.see("no address of the web is taken for a video", statuses == {403}, f"{statuses}, by {len(calls)} calls")
    checks.see("an upload is there", app.ask("GET", f"/gradio_api/file={quote(str(upload))}")[0] == 200)
    checks.see("a name that is not this machine's is refused", app.ask("GET", "/", Host="evil.example.org")[0] == 400)
    status, _ = app.ask("POST", "/gradio_api/queue/join", Origin="http://evil.example.org", Content_Length="0")
    checks.see("a page of another site is refused", status == 403, status)


def pictures(person: Person, folder: Path) -> None:
    """What the documentation shows."""
    page = person.page
    person.send(DEMO, "living room.mp4")
    person.shown()
    person.choose(SLOW)
    page.get_by_role("button", name="What is written").click()
    page.get_by_role("button", name="Windows and noise").click()
    person.run()
    person.until("running", "living room.mp4")
    person.shares(most=0.4)
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme="dark")
    person.reload()
    person.until("running", "living room.mp4")
    page.locator("#card").scroll_into_view_if_needed()
    page.wait_for_timeout(700)
    width = page.evaluate("document.documentElement.scrollWidth")
    person.checks.see("a telephone's width is enough", width <= PHONE["width"], f"{width} pixels")
    page.screenshot(path=folder / "app_phone.png")
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(WIDE)
    person.reload()
    person.until("finished", "living room.mp4")
    page.locator("#video input[type=file]").wait_for(state="attached")
    person.send(DEMO, "living room.mp4")
    person.shown()
    page.wait_for_timeout(1500)
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=folder / "app.png")
    for name in ("app.png", "app_phone.png"):
        reduce_colours(folder / name)
        size = (folder / name).stat().st_size
        person.checks.see(f"{name} is of no more than 200 kB", size <= 200_000, f"{size} bytes")


def end(person: Person, checks: Checks) -> None:
    """SIGTERM amid a run: nothing is left."""
    app = person.app
    person.open()
    person.send(DEMO, "last.mp4")
    person.shown()
    person.choose(SLOW)
    person.run()
    person.until("running", "last.mp4")
    family = family_of(app.pid)
    began = time.monotonic()
    status = app.end(signal.SIGTERM)
    seconds = time.monotonic() - began
    left = [pid for pid in family if Path(f"/proc/{pid}").exists()]
    checks.see("SIGTERM ends it in good order", status == 0 and seconds < 15, f"status {status} after {seconds:.1f} s")
    checks.see("no process is left", not left and len(family) > 1, f"of {len(family)}")
    checks.see("nothing is left of its folder", not app.folder.exists())
    checks.see("it says no traceback of the page that was open", "Traceback" not in "\n".join(app.log))


def kill(browser: Browser, folder: Path, audit: Path, checks: Checks, said: list[str], hosts: set[str]) -> None:
    """SIGKILL amid a run: the next start clears up, and keeps the results that were to be kept."""
    with App(folder, audit, "--keep") as app:
        person = Person(browser, app, checks, said, hosts)
        person.send(BALLS)
        person.shown()
        person.choose(QUICK)
        person.run()
        person.until("finished", "balls.mp4")
        person.send(DEMO)
        person.shown()
        person.choose(SLOW)
        person.run()
        person.until("running")
        family = family_of(app.pid)
        app.end(signal.SIGKILL)
        left = app.own
        person.context.close()
    ends = time.monotonic() + 10
    while (alive := [pid for pid in family if Path(f"/proc/{pid}").exists()]) and time.monotonic() < ends:
        time.sleep(0.05)
    checks.see("after SIGKILL no process is left", not alive, f"of {len(family)}")
    with App(folder, audit, "--keep") as app:
        now = app.own
        checks.see("the next start clears what was orphaned", len(left) == 1 and len(now) == 1 and left != now)
        kept = sorted(path.name for path in (folder / "balls").glob("*"))
        checks.see("results that were to be kept are there", "balls.json" in kept and "balls_depth.mp4" in kept, kept)
        app.end(signal.SIGINT)
    checks.see("after Ctrl-C they are all that is there", [each.name for each in folder.iterdir()] == ["balls"])


def password(browser: Browser, folder: Path, audit: Path, checks: Checks) -> None:
    """Beyond this machine a password is asked for, by all but the page that takes it."""
    try:
        App(folder, audit, "--host", "0.0.0.0").start()
        checks.see("without a password others are not let in", False)
    except RuntimeError as refusal:
        checks.see("without a password others are not let in", "no password" in str(refusal), str(refusal)[24:])
    with App(folder, audit, "--host", "0.0.0.0", DC_RT_PASSWORD=PASSWORD) as app:
        open_to = {
            path: app.ask("GET", path)[0] for path in ("/config", "/gradio_api/info", "/results/x/y", "/assets/x")
        }
        checks.see("nothing is there without it", set(open_to.values()) == {401}, open_to)
        page = browser.new_context().new_page()
        page.goto(app.url)
        page.get_by_label("Password").fill("not the password of this one")
        page.keyboard.press("Enter")
        page.get_by_role("alert").filter(has_text="not the password").wait_for()
        page.get_by_label("Password").fill(PASSWORD)
        page.keyboard.press("Enter")
        page.locator("#run").wait_for()
        checks.see("with it the page opens", True)
        page.context.close()


def reduce_colours(path: Path) -> None:
    """Of a PNG file, to as many as a palette has."""
    from PIL import Image  # which Gradio needs too

    with Image.open(path) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def write_long(path: Path) -> None:
    """A small video with more frames than are taken."""
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width = stream.height = 64
        for number in range(MOST_FRAMES + 30):
            picture = np.full((64, 64, 3), number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())


def main() -> None:
    """Do all of it, report, and write down what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs", help="folder of app.png and app_phone.png")
    arguments = parser.parse_args()
    missing = [extra for extra, module in (("app", "gradio"), ("soak", "playwright")) if not find_spec(module)]
    if missing:
        raise SystemExit(f"This check drives the app in a browser; install the extra {' and '.join(missing)}.")
    if not arguments.chromium:
        raise SystemExit("This check needs Chromium; install it, or give --chromium PATH.")
    from playwright.sync_api import sync_playwright

    checks, said, hosts = Checks(), list[str](), set[str]()
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = Path(temporary)
        (audit := folder / "audit").mkdir()
        # Without a sandbox, which root has none of; it sees our own page alone.
        camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox", *camera])
        limits = ("--max-frames", str(MOST_FRAMES), "--max-upload", str(MOST_BYTES / 1e9))
        with App(folder / "work", audit, *limits) as app:
            person = Person(browser, app, checks, said, hosts)
            watch_cancel_resume(person)
            play(person)
            download(person, folder / "inferred")
            refuse(person, folder)
            record(person)
            several(person, Person(browser, app, checks, said, hosts))
            attack(person)
            pictures(Person(browser, app, checks, said, hosts), arguments.pictures)
            heard = [line for line in said if not any(each in line for each in (*GRADIO_SAYS, *REFUSALS))]
            checks.see("the console is empty", not heard, heard[:5] or "")
            end(person, checks)
            own = urlparse(app.url).netloc
        checks.see("the page asked for nothing of other hosts", hosts == {own, ""}, hosts - {own, ""} or "")
        kill(browser, folder / "kept", audit, checks, said, hosts)
        password(browser, folder / "guarded", audit, checks)
        chromium = browser.version
        browser.close()
        asked = (audit / "asked").read_text().splitlines() if (audit / "asked").exists() else []
    elsewhere = sorted({line for line in asked if not re.search(r"'(127\.0\.0\.1|0\.0\.0\.0|localhost|::1|/)", line)})
    checks.see(
        "the app asked for nothing of other hosts", not elsewhere, elsewhere[:5] or f"{len(asked)} local addresses"
    )
    write_record({"gradio": version("gradio"), "chromium": chromium, "points": checks.record}, "app")
    sys.exit(not checks.are_right)


if __name__ == "__main__":
    main()
