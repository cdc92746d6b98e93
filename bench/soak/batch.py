"""Batches whose workers and parents are killed and stopped end in the results of serial runs, each made once.

    python -m bench.soak.batch --rounds 3 --seed 0

Twelve clips, one of which is no video, go through `dc-rt batch` with three workers. In the first part of a round
workers and parents get SIGKILL at random instants, and batches are started again until one ends. In the second a
worker is stopped amid a video, another batch takes that over, and the worker goes on. In the third two batches begin
at once and share the folder. Each time all results must be those of `dc-rt infer`, bit for bit, each video must have
been finished once, the bad one must be listed, the exit status must be 1, and nothing hidden may be left. Exits with 1
if anything is otherwise; writes bench/results/batch.json. For Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.many import BAD, CLIPS, OPTIONS, Watch, contents, make_clips, run_serially
from bench.processes import children_of
from bench.records import write_record

WORKERS = 3
LEASE_SECONDS = 3.0
TIME_LIMIT = 300.0
POLL_SECONDS = 0.02
DONE = "while the spool was removed"


class Batch:
    """A `dc-rt batch` of all clips, in a process of its own."""

    def __init__(
        self, videos: Path, results: Path, called: str, workers: int = WORKERS, prefix: Sequence[str] = ()
    ) -> None:
        """Start it; what it reports and prints goes into files called so beside the results.

        The command follows on the `prefix`.
        """
        self.log = results.with_name(f"{results.name}-{called}.log")
        self._report = self.log.with_suffix(".json")
        self._report.unlink(missing_ok=True)
        command = [
            *prefix,
            *(sys.executable, "-m", "dc_rt.cli", "batch", str(videos), *OPTIONS, "--save-folder", str(results)),
            *("--workers", str(workers), "--lease-seconds", str(LEASE_SECONDS), "--report", str(self._report)),
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    @property
    def workers(self) -> list[int]:
        """Ids of the processes that run videos."""
        return children_of(self.process.pid)

    def videos(self, status: str) -> list[str]:
        """Of an ended batch, the videos that it reports to be so, by the ends of their paths."""
        report = json.loads(self._report.read_bytes())
        return sorted(each["video"].partition("/videos/")[2] for each in report["videos"] if each["status"] == status)

    def wait_for_lease(self, results: Path) -> None:
        """Wait until one of its workers is at a video, or it has ended."""
        wait_for(lambda: not self.is_running or any(id_ in held(results) for id_ in self.workers))

    def end(self) -> list[str]:
        """Wait for its end; what is wrong with it, but for videos that failed because they were disturbed."""
        status = self.process.wait(TIME_LIMIT)
        wrong = [f"exit status {status}"] if status != 1 else []
        if BAD not in self.videos("failed"):
            wrong.append("the bad file is not listed")
        if "Traceback" in self.log.read_text(errors="replace"):
            wrong.append(f"a traceback in {self.log}")
        return wrong


def held(results: Path) -> dict[int, Path]:
    """The lease that each process holds that holds one, by its id."""
    leases = {}
    for path in results.rglob(".*.lease-*"):
        with suppress(OSError, ValueError, KeyError, TypeError):  # one that is just being made, or released
            if found := re.match(r"process (\d+) on", json.loads(path.read_bytes())["holder"]):
                leases[int(found[1])] = path
    return leases


def stage_of(lease: Path) -> str:
    """How far the video of a lease had come, by what is there."""
    name = lease.name[1:].rpartition(".lease-")[0]
    spools = [*lease.parent.glob(f".{name}.spool*")]
    if (lease.parent / f"{name}.json").exists():
        return DONE
    if any(lease.parent.glob(f"{name}_*")):
        return "while results were moved"
    if any((spool / "results").exists() for spool in spools):
        return "while results were written"
    if any((spool / "state").exists() for spool in spools):
        return "between the first window and the last"
    return "in the first window" if spools else "before anything was written"


def wait_for(happened: Callable[[], bool]) -> None:
    """Look again and again; raises `SystemExit` where it does not come."""
    until = time.monotonic() + TIME_LIMIT
    while not happened():
        if time.monotonic() > until:
            raise SystemExit("what was waited for has not come")
        time.sleep(POLL_SECONDS)


def run_killed(videos: Path, results: Path, rng: random.Random) -> tuple[list[str], dict[str, Any]]:
    """Kill workers and parents at random, and start again until one ends; what is wrong, and what was seen."""
    workers_left, parents_left = rng.randint(3, 6), rng.randint(1, 3)
    stages: Counter[str] = Counter()
    parents = batches = 0
    while True:
        batch = Batch(videos, results, "killed")
        batches += 1
        while batch.is_running and (workers_left or parents_left):
            batch.wait_for_lease(results)
            time.sleep(rng.uniform(0, 1.5))
            if rng.random() < parents_left / (workers_left + parents_left):
                parents_left -= 1
                if batch.is_running:
                    parents += 1
                    batch.process.kill()
                    batch.process.wait()
                    break
                continue
            workers_left -= 1
            leases = held(results)
            if workers := [id_ for id_ in batch.workers if id_ in leases]:
                os.kill(killed := rng.choice(workers), signal.SIGKILL)
                stages[stage_of(leases[killed])] += 1
        else:
            wrong = batch.end()
            # Those that were killed too often are reported, and are for the next batch.
            if batch.videos("failed") == [BAD] or wrong:
                break
    return wrong, {"batches": batches, "parents_killed": parents, "workers_killed_by_stage": dict(stages)}


def run_stopped(videos: Path, results: Path, rng: random.Random) -> tuple[list[str], dict[str, Any]]:
    """Stop a worker amid a video until another batch has taken that over, then let it go on."""
    first = Batch(videos, results, "first")
    stopped, lease = None, Path()
    first.wait_for_lease(results)
    time.sleep(rng.uniform(0, 4))
    while stopped is None:
        first.wait_for_lease(results)
        if not first.is_running:
            raise SystemExit("the batch ended before one of its workers was stopped")
        leases = held(results)
        for id_ in rng.sample(first.workers, len(first.workers)):
            if id_ in leases:
                os.kill(id_, signal.SIGSTOP)
                if held(results).get(id_) == leases[id_]:
                    stopped, lease = id_, leases[id_]
                    break
                os.kill(id_, signal.SIGCONT)  # it was just done with it
    stage = stage_of(lease)
    second = Batch(videos, results, "second", workers=1)
    wait_for(lambda: not lease.exists())
    time.sleep(rng.choice([0, rng.uniform(0, 1), rng.uniform(0, 4)]))
    os.kill(stopped, signal.SIGCONT)
    wrong = [
        f"{called}: {sentence}" for called, batch in (("first", first), ("second", second)) for sentence in batch.end()
    ]
    name = lease.name[1:].rpartition(".lease-")[0]
    video = (lease.parent / f"{name}.mp4").relative_to(results).as_posix()
    if stage != DONE and video not in second.videos("finished"):
        wrong.append(f"{video} was not taken over")
    if first.videos("failed") != [BAD]:
        wrong.append(f"failed with the first: {first.videos('failed')}")
    return wrong, {"stopped": stage, "taken_over": video}


def run_shared(videos: Path, results: Path, rng: random.Random) -> tuple[list[str], dict[str, Any]]:
    """Two batches at once."""
    batches = [Batch(videos, results, "left"), Batch(videos, results, "right")]
    wrong = [sentence for batch in batches for sentence in batch.end()]
    finished = [batch.videos("finished") for batch in batches]
    if sorted(finished[0] + finished[1]) != sorted(clip.path for clip in CLIPS):
        wrong.append(f"finished by the one: {finished[0]}, by the other: {finished[1]}")
    if not all(finished):
        wrong.append("one of them did nothing")
    return wrong, {"finished_by_each": [len(each) for each in finished]}


Run = Callable[[Path, Path, random.Random], tuple[list[str], dict[str, Any]]]
"""Runs batches of the videos in a folder into another one; gives what is wrong, in sentences, and what was seen."""

Try = tuple[str, Mapping[str, Any], Run]
"""What is said of it, what its record begins with, and it."""


def try_each(tries: Iterable[Try], rng: random.Random) -> tuple[list[dict[str, Any]], int]:
    """Run each on all clips, into a folder of its own, and compare with serial runs.

    Returns:
        What was seen of each, with what was wrong as "wrong"; and how many files were compared each time.
    """
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        videos, results = Path(name) / "videos", Path(name) / "results"
        make_clips(videos)
        run_serially(videos, Path(name) / "serial")
        expected = contents(Path(name) / "serial")
        for called, about, run in tries:
            with Watch(results) as watch:
                wrong, seen = run(videos, results, rng)
            wrong += watch.wrong(expected)
            rounds.append({**about, **seen, "wrong": wrong})
            told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in seen.items())
            print(f"{called}: {told}: {'; '.join(wrong) or 'identical, each done once'}", flush=True)
            shutil.rmtree(results)
    return rounds, len(expected)


PARTS = {"killed": run_killed, "stopped": run_stopped, "shared": run_shared}


def main() -> None:
    """Disturb, compare, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)

    tries = [
        (f"round {number}, {part}", {"part": part}, PARTS[part])
        for number in range(arguments.rounds)
        for part in arguments.parts
    ]
    rounds, num_files = try_each(tries, rng)
    whole = sum(not each["wrong"] for each in rounds)
    print(f"{whole} of {len(rounds)} folders are identical to serial runs, with each of {len(CLIPS)} videos done once")
    record = {
        "seed": arguments.seed,
        "videos": len(CLIPS) + 1,
        "workers": WORKERS,
        "lease_seconds": LEASE_SECONDS,
        "files_compared": num_files,
        "identical_and_done_once": whole,
        "rounds": rounds,
    }
    write_record(record, "batch")
    sys.exit(whole < len(rounds))


if __name__ == "__main__":
    main()
