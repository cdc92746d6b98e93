"""`dc-rt serve` under load, killed, disconnected from, attacked and fuzzed.

    python -m bench.soak.serve --clients 50 --kills 5 --requests 1000

- 50 clients at once, twice: each sends a clip, follows its events to the end, and takes its results. The memory of the
  server and of its processes is sampled all the while; the second time must not take more than the first one did.
- The server gets SIGKILL, at times SIGTERM, at random instants amid its jobs, and is started again: nothing is lost,
  every job ends with the bits of `dc-rt infer`, and a client that goes on with Last-Event-ID misses no event and hears
  none twice.
- Cancelling ends the process that runs the job.
- Requests that mean harm are refused in a sentence: files that are no job's, no token or a wrong one, too much.
- schemathesis, in an environment of its own that is made for it, finds no answer of 500 and above.

Prints what it saw, writes bench/results/serve.json, and exits with 1 where anything is wrong. For Linux.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.checks import Checks
from bench.clips import DEMO
from bench.records import write_record
from bench.serving.attacks import attacked
from bench.serving.fuzz import fuzzed
from bench.serving.service import ENDED, QUICK, SLOW, SentEvent, Service, descendants, resident_mb
from bench.soak.memory import write_clip

MOST_CANCEL_SECONDS = 2.0
# What a second crowd may take beyond the first: allocators keep what they had, and nothing may grow from job to job.
MOST_GROWTH = 1.15
UPLOAD_MB, MOST_UPLOAD_GROWTH_MB = 400, 64
POLL_SECONDS = 0.05


class Memory:
    """The memory of a server and of its processes, in MB, sampled by a thread while it is open."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.server: list[float] = []
        self.children: list[float] = []

    def _sample(self) -> None:
        while not self._ended.is_set():
            self.server.append(resident_mb(self._pid))
            self.children.append(sum(map(resident_mb, descendants(self._pid))))
            self._ended.wait(0.2)

    @property
    def record(self) -> dict[str, Any]:
        """Before, at the peak, and at the end."""
        return {
            name: {"before": round(found[0]), "peak": round(max(found)), "after": round(found[-1])}
            for name, found in (("server", self.server), ("children", self.children))
        }

    def __enter__(self) -> Memory:
        self._thread.start()
        time.sleep(1)
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(1)
        self._ended.set()
        self._thread.join()


def is_whole(events: list[SentEvent]) -> bool:
    """Whether no event is missing and none came twice: they are numbered from 1."""
    return [event.id for event in events] == list(range(1, len(events) + 1))


def is_over(events: list[SentEvent]) -> bool:
    """Whether the last of them is the last one of a job that has ended."""
    return bool(events) and events[-1].kind == "Status" and events[-1].data["status"] in ENDED


# 50 clients


def visit(service: Service, clip: Path, number: int) -> str:
    """Send a clip, follow it to its end and take its results; what went wrong, or nothing."""
    job = service.upload(clip, QUICK, f"clip {number}.mp4")
    events = list(service.events(job["id"]))
    if not is_whole(events):
        return f"events {[event.id for event in events]}"
    job = service.job(job["id"])
    if job["status"] != "finished" or events[-1].data["status"] != "finished":
        return f"{job['status']}: {job['error']}"
    results = service.results(job)
    sizes = {file["name"]: file["bytes"] for file in job["files"]}
    if not results or any(len(content) != sizes[name] for name, content in results.items()):
        return "results that are not whole"
    return ""


def crowd(service: Service, clip: Path, clients: int, checks: Checks) -> dict[str, Any]:
    """All clients at once; what was wrong with any of them, and the memory."""
    began = time.perf_counter()
    with Memory(service.pid) as memory, ThreadPoolExecutor(clients) as pool:
        wrong = [each for each in pool.map(lambda number: visit(service, clip, number), range(clients)) if each]
    seconds = round(time.perf_counter() - began, 1)
    checks.see(f"{clients} clients at once end right", not wrong, wrong or f"{seconds} s; MB: {memory.record}")
    return {"seconds": seconds, "memory_mb": memory.record}


def crowds(folder: Path, clients: int, checks: Checks) -> dict[str, Any]:
    """Two crowds, one after the other, and a video that is much larger than what the server may hold."""
    clip = folder / "crowd.mp4"
    write_clip(clip, 16, 64, 64)
    with Service(folder / "crowds", "--max-queue", str(2 * clients), "--max-upload", "1") as service:
        visit(service, clip, -1)  # the model is open from here on
        found = [crowd(service, clip, clients, checks) for _ in range(2)]
        for name in ("server", "children"):
            first, second = (each["memory_mb"][name]["peak"] for each in found)
            enough = second <= MOST_GROWTH * first
            checks.see(f"memory does not grow from crowd to crowd: {name}", enough, f"peaks of {first} and {second} MB")
        with Memory(service.pid) as memory:
            service.upload(padded(clip, UPLOAD_MB, folder / "large.mp4"), QUICK)
        growth = max(memory.server) - memory.server[0]
        checks.see(
            f"a video of {UPLOAD_MB} MB is not held in memory", growth < MOST_UPLOAD_GROWTH_MB, f"{growth:.0f} MB more"
        )
    return {"clients": clients, "crowds": found, "upload_growth_mb": round(growth)}


def padded(clip: Path, megabytes: int, path: Path) -> Path:
    """The same video, with a box of nothing behind it."""
    size = megabytes * 10**6
    with path.open("wb") as file:
        file.write(clip.read_bytes() + size.to_bytes(4, "big") + b"free")
        file.truncate(file.tell() + size - 8)
    return path


# SIGKILL


def infer(video: Path, folder: Path, options: Mapping[str, Any]) -> dict[str, bytes]:
    """What `dc-rt infer` writes, by the ends of the names, but for its record."""
    flags = {"steps": "--num-denoising-steps"}
    typed = [
        each for name, value in options.items() for each in (flags.get(name, f"--{name.replace('_', '-')}"), str(value))
    ]
    command = [sys.executable, "-m", "dc_rt.cli", "infer", str(video), "--save-folder", str(folder), *typed]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return by_end({path.name: path.read_bytes() for path in folder.glob("*.mp4")}, video.stem)


def by_end(files: Mapping[str, bytes], stem: str) -> dict[str, bytes]:
    """The same by what follows the video's name."""
    return {name.removeprefix(stem): content for name, content in files.items()}


class Follower:
    """A client that follows the events of a job over all that breaks its stream off, and goes on where it was."""

    def __init__(self, service: Service, id: str) -> None:
        self.events: list[SentEvent] = []
        self.streams = 0
        self._service = service
        self._id = id
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    @property
    def has_ended(self) -> bool:
        """Whether the last event was heard."""
        return is_over(self.events)

    def _follow(self) -> None:
        while not self.has_ended:
            before = len(self.events)
            with suppress(OSError):  # nobody listens there at the moment
                self.events.extend(self._service.events(self._id, self.events[-1].id if self.events else None))
            self.streams += len(self.events) > before
            time.sleep(POLL_SECONDS)

    def wait(self) -> list[SentEvent]:
        """All events, to the last one."""
        self._thread.join(300)
        return self.events


def killed(folder: Path, kills: int, rng: random.Random, checks: Checks) -> dict[str, Any]:
    """Jobs that wait and a job that runs, under a server that is killed again and again."""
    expected = {
        video: infer(video, folder / f"infer {video.stem}", SLOW) for video in (DEMO, DEMO.with_name("balls.mp4"))
    }
    lived, orphans = [], []
    with Service(folder / "killed") as service:
        jobs = {service.upload(video, SLOW)["id"]: video for video in expected}
        followers = {id: Follower(service, id) for id in jobs}
        for number in range(kills):
            lived.append(await_instant(list(followers.values()), number % 2 == 0, rng))
            children = descendants(service.pid)
            if number % 3 == 1:
                status = service.stop()
                checks.see("SIGTERM ends the server in good order", status == 0, f"status {status}")
            else:
                service.kill()
            orphans.append(gone_after(children))
            service.start()
        ends = {id: follower.wait() for id, follower in followers.items()}
        listed = {job["id"]: job for job in service.ask("GET", "/jobs").json["jobs"]}
        for id, video in jobs.items():
            job = listed.get(id, {"status": "lost", "error": None, "files": []})
            name = video.name
            checks.see(f"{name}: nothing is lost", job["status"] == "finished", f"{job['status']} {job['error'] or ''}")
            same = by_end(service.results(job), video.stem) == expected[video]
            checks.see(f"{name}: the bits of dc-rt infer", same)
            whole = is_whole(ends[id])
            found = f"{len(ends[id])} events over {followers[id].streams} streams"
            checks.see(f"{name}: no event is missed or heard twice over restarts", whole, found)
            again = list(service.events(id))
            checks.see(f"{name}: who comes later hears the same", again == ends[id], f"{len(again)} events")
        resumed = sum(event.kind == "Resumed" for events in ends.values() for event in events)
        checks.see("what was done is not done again", resumed > 0, f"resumed {resumed} times")
    checks.see("children of a killed server end", max(orphans, default=0) < 10, f"after {orphans} s")
    return {"kills_after_seconds": lived, "orphans_lived_seconds": orphans, "resumed": resumed}


def await_instant(followers: list[Follower], is_kept: bool, rng: random.Random) -> float:
    """Wait for a random time, first for another window that is kept if so asked; the seconds in all."""

    def kept() -> int:
        return sum(event.kind == "WindowDone" for follower in followers for event in follower.events)

    began, before = time.perf_counter(), kept()
    while is_kept and kept() == before and not all(follower.has_ended for follower in followers):
        time.sleep(POLL_SECONDS)
    time.sleep(rng.uniform(0, 1 if is_kept else 6))
    return round(time.perf_counter() - began, 1)


def gone_after(pids: list[int], patience: float = 30.0) -> float:
    """Seconds until all these processes have ended."""
    began = time.perf_counter()
    while any(is_alive(pid) for pid in pids) and time.perf_counter() < began + patience:
        time.sleep(0.01)
    return round(time.perf_counter() - began, 2)


def is_alive(pid: int) -> bool:
    """Whether a process runs: one that has ended and that nobody has waited for does not."""
    with suppress(OSError):
        return not re.search(r"^State:\s+[ZX]", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return False


# Streams that break off, and cancelling


def dropped(service: Service, rng: random.Random, checks: Checks) -> dict[str, Any]:
    """A client that hangs up after every few events."""
    id = service.upload(DEMO, SLOW)["id"]
    heard: list[SentEvent] = []
    streams = 0
    while not is_over(heard):
        most = rng.randint(1, 4)
        streams += 1
        for event in service.events(id, heard[-1].id if heard else None):
            heard.append(event)
            most -= 1
            if not most:
                break
    checks.see(
        "dropped streams go on with no event lost or doubled",
        is_whole(heard),
        f"{len(heard)} events, {streams} streams",
    )
    checks.see("they are those of a stream that was not dropped", list(service.events(id)) == heard)
    after_last = service.ask("GET", f"/jobs/{id}/events", headers={"Last-Event-ID": str(heard[-1].id)})
    checks.see("after the last event there is none", not after_last.body, after_last.status)
    return {"events": len(heard), "streams": streams}


def cancelled(service: Service, checks: Checks, times: int = 5) -> list[dict[str, float]]:
    """Cancel running jobs at several stages; seconds until that is answered, and until the process is gone."""
    found = []
    for number in range(times):
        id = service.upload(DEMO, SLOW)["id"]
        for event in service.events(id):
            if event.kind in ("Progress", "Planned") and event.data.get("share", 1) >= 0.1 * number:
                break
        children = descendants(service.pid)
        began = time.perf_counter()
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(service.ask, "POST", f"/jobs/{id}/cancel")
            gone = gone_after(children)
            status = answer.result().json["status"]
        answered = round(time.perf_counter() - began, 2)
        found.append({"process_gone_seconds": gone, "answered_seconds": answered})
        right = bool(children) and status == "cancelled" and gone <= MOST_CANCEL_SECONDS
        checks.see(f"cancel ends the process within {MOST_CANCEL_SECONDS:g} s", right, f"{status}, gone after {gone} s")
    service.ask("POST", f"/jobs/{id}/resume")
    last = list(service.events(id))[-1]
    checks.see("a job that was cancelled is resumed to its end", last.data["status"] == "finished", last.data)
    return found


def main() -> None:
    """Do all of it, report, and write down what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1000, help="of the fuzzer, at least")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)

    checks = Checks()
    with tempfile.TemporaryDirectory() as name:
        parts = {part: Path(name) / part for part in ("crowds", "killed", "streams", "attacked", "fuzzed")}
        for folder in parts.values():
            folder.mkdir()
        record: dict[str, Any] = {
            "crowds": crowds(parts["crowds"], arguments.clients, checks),
            "killed": killed(parts["killed"], arguments.kills, rng, checks),
        }
        with Service(parts["streams"]) as service:
            record |= {"dropped": dropped(service, rng, checks), "cancelled": cancelled(service, checks)}
        record |= {
            "attacks": attacked(parts["attacked"], checks),
            "fuzzed": fuzzed(parts["fuzzed"], arguments.requests, checks),
            "points": checks.record,
        }
    write_record(record, "serve")
    sys.exit(not checks.are_right)


if __name__ == "__main__":
    main()
