"""The page of `dc-rt serve` in a browser: what a person does with it, from the first drop to the last deletion.

    python -m bench.soak.page

Starts a service with a token and a headless Chromium (of the system, or `--chromium PATH`), drops a video, watches its
progress, plays what came of it, cancels, resumes, deletes, and kills the service under the open page. No script may
fail, nothing may be against the page's Content-Security-Policy, and no request may go to another host. Writes
serve_page.png into docs/ and bench/results/page.json; exits with 1 where anything is wrong. Needs the extra `soak`.
"""

from __future__ import annotations

import argparse
import base64
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from bench.checks import Checks
from bench.clips import DEMO
from bench.records import write_record
from bench.serving.service import TOKEN, Service

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

ROOT = Path(__file__).parents[2]
MARKUP = "<img src=x onerror=document.title='run'>.mp4"
QUICK = {"max_res": "64", "steps": "1"}
# Long enough to be watched, cancelled and resumed; with windows this short, something is kept soon.
SLOW = {"max_res": "320", "steps": "3", "window_size": "12", "overlap": "4"}
WIDE, PHONE = {"width": 1180, "height": 900}, {"width": 390, "height": 844}
PATIENCE_MS = 120_000
# What a browser says by itself of answers that are no success; the page shows their sentences.
REFUSALS = (
    "status of 401",
    "status of 415",
    "status of 422",
    "net::ERR_CONNECTION",
    "net::ERR_INCOMPLETE",
    "net::ERR_EMPTY",
)


class Browsing:
    """A page that is open, and all that it said and asked for."""

    def __init__(self, page: Page, service: Service, checks: Checks) -> None:
        self.page = page
        self.service = service
        self.checks = checks
        self.console: list[str] = []
        self.hosts: set[str] = set()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: self.console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.console.append(f"error: {error}"))
        page.on("request", lambda request: self.hosts.add(urlparse(request.url).netloc))
        page.add_init_script(
            "document.addEventListener('securitypolicyviolation', (event) => "
            "console.error('policy', event.violatedDirective, event.blockedURI))"
        )

    def card(self, name: str) -> Locator:
        """Of the newest job of that name."""
        return self.page.locator(".card", has=self.page.get_by_role("heading", name=name, exact=True)).first

    def status(self, name: str, expected: str) -> None:
        """Wait for a job to be in it."""
        self.card(name).locator(".status", has_text=expected).wait_for()

    def choose(self, options: dict[str, str]) -> None:
        """Set options as a person does."""
        more = self.page.locator("details", has_text="More options").last
        more.evaluate("each => each.open = true")
        for name, value in options.items():
            self.page.locator(f"#option-{name}").fill(value)
        more.evaluate("each => each.open = false")

    def drop(self, name: str, content: bytes) -> None:
        """As from a file manager."""
        transfer = self.page.evaluate_handle(
            """([name, content]) => {
                const bytes = Uint8Array.from(atob(content), (each) => each.charCodeAt(0));
                const transfer = new DataTransfer();
                transfer.items.add(new File([bytes], name, { type: "video/mp4" }));
                return transfer;
            }""",
            [name, base64.b64encode(content).decode()],
        )
        for event in ("dragenter", "dragover", "drop"):
            self.page.dispatch_event("#drop", event, {"dataTransfer": transfer})

    def shares(self, name: str, enough: Callable[[list[float]], bool]) -> list[float]:
        """What the progress bar of a job shows, until it is enough or the job has ended."""
        found: list[float] = []
        while not enough(found):
            bar = self.card(name).locator("progress")
            share = bar.evaluate("each => each.hidden ? -1 : each.value")
            if share < 0 and self.card(name).get_attribute("data-status") not in ("queued", "running"):
                break
            if share >= 0 and (not found or share != found[-1]):
                found.append(share)
            self.page.wait_for_timeout(50)
        return found


def enter(browsing: Browsing) -> None:
    """The token is asked for; a wrong one is refused in the service's words, and the right one kept nowhere."""
    page, checks = browsing.page, browsing.checks
    page.goto(browsing.service.url)
    page.get_by_label("Token", exact=True).fill("not the token of this one")
    page.get_by_role("button", name="Continue").click()
    refusal = page.locator("#token-error")
    refusal.wait_for()
    checks.see("a wrong token is refused in a sentence", "not the one" in refusal.inner_text(), refusal.inner_text())
    page.get_by_label("Token", exact=True).fill(TOKEN)
    page.keyboard.press("Enter")
    page.get_by_label("Steps", exact=True).wait_for()
    page.reload()
    page.get_by_label("Steps", exact=True).wait_for()
    kept = page.evaluate("[...Object.values(localStorage), ...Object.values(sessionStorage), document.cookie].join()")
    addresses = page.evaluate("performance.getEntriesByType('resource').map(({ name }) => name).join()")
    checks.see("the token is in no address, and in no storage that scripts read", TOKEN not in kept + addresses, kept)


def drop_and_watch(browsing: Browsing) -> None:
    """A dropped video's progress moves."""
    checks = browsing.checks
    browsing.choose(SLOW)
    browsing.drop("room.mp4", DEMO.read_bytes())
    browsing.status("room.mp4", "Running")
    shares = browsing.shares("room.mp4", lambda found: False)
    browsing.status("room.mp4", "Finished")
    moves = len(shares) > 4 and shares == sorted(shares)
    checks.see("progress moves forward", moves, f"{len(shares)} values" if moves else shares)


def play(browsing: Browsing) -> None:
    """Source and depth play together; both ways of showing depth do, and files are downloaded whole."""
    checks, card = browsing.checks, browsing.card("room.mp4")
    card.get_by_role("button", name="Show results").click()
    for name in ("Grey", "Colours"):
        card.get_by_role("button", name=name).click()
        browsing.page.wait_for_timeout(1500)
        times: list[float] = []
        later: list[float] = []
        for found in (times, later):
            found.extend(card.locator("video").evaluate_all("all => all.map((each) => each.currentTime)"))
            browsing.page.wait_for_timeout(700)
        errors = card.locator("video").evaluate_all("all => all.map((each) => each.error?.message ?? '')")
        moved = len(times) == 2 and all(a != b for a, b in zip(times, later, strict=True)) and not any(errors)
        checks.see(f"source and depth play ({name.lower()})", moved, f"{times} s, then {later} s {''.join(errors)}")
        checks.see("they play together", abs(later[0] - later[-1]) < 0.1, f"{abs(later[0] - later[-1]):.3f} s apart")
    card.get_by_role("button", name="Pause").click()
    (job,) = browsing.service.ask("GET", "/jobs").json["jobs"]
    expected = browsing.service.results(job)
    for link in card.locator(".files a").all():
        with browsing.page.expect_download() as downloading:
            link.click()
        content = downloading.value.path().read_bytes()
        name = link.inner_text()
        checks.see(
            "downloads are whole", name not in expected or content == expected[name], f"{name}: {len(content)} bytes"
        )


def picture(browsing: Browsing, pictures: Path) -> None:
    """Of a result, of a job that runs, and of one that waits: what the documentation shows, and a telephone's."""
    page = browsing.page
    browsing.drop("harbour.mp4", DEMO.with_name("balls.mp4").read_bytes())
    browsing.drop("street.mp4", DEMO.with_name("still.mp4").read_bytes())
    browsing.status("street.mp4", "Queued")
    browsing.shares("harbour.mp4", lambda found: bool(found and found[-1] > 0.4))
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=pictures / "serve_page.png")
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size(PHONE)
    page.evaluate("document.getElementById('queue').scrollIntoView()")
    page.screenshot(path=pictures / "serve_page_phone.png")
    width = page.evaluate("document.documentElement.scrollWidth")
    browsing.checks.see("a telephone's width is enough", width <= PHONE["width"], f"{width} pixels")
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(WIDE)


def cancel_and_resume(browsing: Browsing) -> None:
    """The one that runs is cancelled, the one that waited comes on; resumed, the first one is finished."""
    checks = browsing.checks
    card = browsing.card("harbour.mp4")
    card.get_by_role("button", name="Cancel").click()
    browsing.status("harbour.mp4", "Cancelled")
    checks.see("cancel ends a job", True)
    browsing.card("street.mp4").get_by_role("button", name="Cancel").click()
    browsing.status("street.mp4", "Cancelled")
    card.get_by_role("button", name="Resume").click()
    browsing.status("harbour.mp4", "Running")
    shares = browsing.shares("harbour.mp4", lambda found: len(found) > 2)
    checks.see("a resumed job goes on", len(shares) > 2, f"from {shares[0]:.2f}" if shares else "")


def kill_the_service(browsing: Browsing) -> None:
    """Under the open page, in the middle of a job: it says so, and goes on when the service is back."""
    page, checks = browsing.page, browsing.checks
    browsing.service.kill()
    page.locator("#banner").wait_for()
    checks.see("a service that is gone is said", True, page.locator("#banner").inner_text())
    browsing.service.start()
    page.locator("#banner").wait_for(state="hidden")
    browsing.status("harbour.mp4", "Finished")
    checks.see("the page goes on with the service", True)


def refuse(browsing: Browsing) -> None:
    """What the service refuses is said where the person looks, in its sentence."""
    checks = browsing.checks
    browsing.drop("notes.mp4", b"no video at all")
    found = browsing.card("notes.mp4").locator(".error:not([hidden])")
    found.first.wait_for()
    checks.see("a file that is no video is refused in a sentence", True, found.first.inner_text())
    browsing.drop(MARKUP, b"no video at all")
    browsing.card(MARKUP).locator(".error:not([hidden])").first.wait_for()
    images = browsing.page.locator("#queue img").count()
    checks.see("a name that is markup is shown as text", not images and browsing.page.title() != "run")
    browsing.choose({"overlap": "99"})
    browsing.drop("wrong.mp4", DEMO.read_bytes())
    found = browsing.card("wrong.mp4").locator(".error:not([hidden])")
    found.first.wait_for()
    checks.see(
        "a wrong option is refused in a sentence", "overlap" in found.first.inner_text(), found.first.inner_text()
    )


def delete(browsing: Browsing) -> None:
    """It asks first, and what was deleted is gone from the service."""
    page, checks = browsing.page, browsing.checks
    before = len(browsing.service.ask("GET", "/jobs").json["jobs"])
    for answer, expected in (("Keep it", before), ("Delete", before - 1)):
        browsing.card("street.mp4").get_by_role("button", name="Delete").click()
        page.locator("#delete-dialog").get_by_role("button", name=answer).click()
        if answer == "Delete":
            browsing.card("street.mp4").wait_for(state="detached")
        left = len(browsing.service.ask("GET", "/jobs").json["jobs"])
        checks.see(f"{answer!r} does what it says", left == expected, f"{left} of {before} jobs")


def without_a_mouse(browsing: Browsing) -> None:
    """Everything has a name that a screen reader says; a video is chosen, and nothing moves unasked, by keyboard."""
    page, checks = browsing.page, browsing.checks
    nameless = page.evaluate(
        """[...document.querySelectorAll("input, select, button, a, progress, video")].filter((each) =>
            !each.labels?.length && !each.ariaLabel && !each.textContent.trim()).map((each) => each.outerHTML)"""
    )
    checks.see("all that can be used has a name", not nameless, nameless or "")
    page.locator("#file").focus()
    with page.expect_file_chooser() as choosing:
        page.keyboard.press("Enter")
    browsing.choose(QUICK | {"window_size": "12", "overlap": "4"})
    choosing.value.set_files(DEMO)
    browsing.status(DEMO.name, "Finished")
    page.emulate_media(reduced_motion="reduce")
    card = browsing.card(DEMO.name)
    card.get_by_role("button", name="Show results").press("Enter")
    page.wait_for_timeout(1000)
    times = card.locator("video").evaluate_all("all => all.map((each) => each.currentTime)")
    checks.see("nothing plays by itself where less motion is asked for", times == [0, 0], times)
    card.get_by_role("button", name="Play").press("Enter")
    page.wait_for_timeout(1000)
    times = card.locator("video").evaluate_all("all => all.map((each) => each.currentTime)")
    checks.see("a video is chosen, run and played by keyboard", min(times) > 0, times)


STEPS = (enter, drop_and_watch, play, cancel_and_resume, kill_the_service, refuse, delete, without_a_mouse)


def main() -> None:
    """Do all of it, report, and write down what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs", help="folder of serve_page.png")
    arguments = parser.parse_args()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise SystemExit("This check drives a browser with Playwright; install the extra soak.") from None

    checks = Checks()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        # Without a sandbox, which root has none of; it sees our own page alone.
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox"])
        page = browser.new_context(viewport=WIDE, locale="en-GB").new_page()
        with Service(Path(folder), token=TOKEN) as service:
            browsing = Browsing(page, service, checks)
            for step in STEPS:
                step(browsing)
                if step is play:
                    picture(browsing, arguments.pictures)
            host = urlparse(service.url).netloc
        said = [line for line in browsing.console if not any(refusal in line for refusal in REFUSALS)]
        checks.see("the console is empty: no errors, nothing against the policy", not said, said or "")
        checks.see("no request goes to another host", browsing.hosts == {host}, sorted(browsing.hosts))
        version = browser.version
        browser.close()
    record: dict[str, Any] = {"chromium": version, "points": checks.record}
    write_record(record, "page")
    sys.exit(not checks.are_right)


if __name__ == "__main__":
    main()
