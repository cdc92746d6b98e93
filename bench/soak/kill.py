"""Runs that are killed at random instants end in the results of one that was not.

    python -m bench.soak.kill --runs 50 --seed 0

Each run of `dc-rt infer` gets SIGKILL after a random time, some of them several times, and is then resumed to its end.
Every other run is of several shots, one of them of a single frame, and every fourth looks for cuts first. All results
must be those of the uninterrupted run, bit for bit. Exits with 1 if any is not; writes bench/results/kill.json.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from bench.clips import DEMO
from bench.records import write_record
from dc_rt.outputs import all_outputs

OPTIONS = (
    *("--max-res", "64", "--num-denoising-steps", "1", "--window-size", "12", "--overlap", "4"),
    *("--outputs", ",".join(all_outputs())),
)
CUTS = (13, 14, 37)  # of the demo's 60 frames; it has none that would be found
# How runs take their shots, one after the other: FILE is the list of those cuts.
SHOTS = ("none", "FILE", "auto", "FILE")


def start(folder: Path, shots: str) -> subprocess.Popen[bytes]:
    """A run into `folder`."""
    options = (*OPTIONS, "--shots", shots, "--save-folder", str(folder))
    command = [sys.executable, "-m", "dc_rt.cli", "infer", str(DEMO), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def results(folder: Path) -> dict[str, bytes]:
    """Contents of all files by name, but for the record, which has times in it."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def stage_of(folder: Path) -> str:
    """How far a killed run had come, by what it left."""
    spool = folder / f".{DEMO.stem}.spool"
    if (folder / f"{DEMO.stem}.json").exists():
        return "while the spool was removed"
    if any(folder.glob(f"{DEMO.stem}*")):
        return "while results were moved"
    if (spool / "results").exists():
        return "while results were written"
    if (spool / "state").exists():
        return "between the first window and the last"
    return "in the first window" if spool.exists() else "before anything was written"


def whole(folder: Path, shots: str) -> tuple[dict[str, bytes], float]:
    """Results of an uninterrupted run, and the seconds that it took."""
    began = time.perf_counter()
    process = start(folder, shots)
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"the uninterrupted run failed: {errors.decode()}")
    return results(folder), time.perf_counter() - began


def killed_and_resumed(folder: Path, shots: str, seconds: float, rng: random.Random) -> list[str]:
    """Kill a run, perhaps its successors too, and let the last one end; where each kill struck.

    A run that ended before it was to be killed does not count: all begins anew, with less time.
    """
    struck: list[str] = []
    kills = rng.choice([1, 1, 1, 2, 3])
    while len(struck) < kills:
        process = start(folder, shots)
        time.sleep(rng.uniform(0, seconds))
        if process.poll() is not None:
            shutil.rmtree(folder)
            struck.clear()
            seconds *= 0.8
            continue
        process.kill()
        process.communicate()
        struck.append(stage_of(folder))
    process = start(folder, shots)
    _, errors = process.communicate(timeout=600)
    if process.returncode:
        raise SystemExit(f"a resumed run failed: {errors.decode()}")
    return struck


def main() -> None:
    """Kill, resume, compare, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)

    with tempfile.TemporaryDirectory() as folder:
        cuts = Path(folder) / "cuts.csv"
        cuts.write_text("\n".join(map(str, CUTS)))
        ways = [shots.replace("FILE", str(cuts)) for shots in SHOTS]
        expected = {
            shots: whole(Path(folder) / f"whole{index}", shots) for index, shots in enumerate(dict.fromkeys(ways))
        }
        struck: Counter[str] = Counter()
        kills: Counter[int] = Counter()
        different = []
        for run in range(arguments.runs):
            out, shots = Path(folder) / f"run{run}", ways[run % len(ways)]
            undisturbed, seconds = expected[shots]
            stages = killed_and_resumed(out, shots, seconds, rng)
            struck.update(stages)
            kills[len(stages)] += 1
            found = results(out)
            names = sorted(found.keys() | undisturbed.keys())
            differing = [name for name in names if found.get(name) != undisturbed.get(name)]
            if differing:
                different.append(run)
            verdict = f"DIFFERENT {differing}" if differing else "identical"
            print(f"run {run} (shots {SHOTS[run % len(SHOTS)]}): {', '.join(stages)}: {verdict}", flush=True)
            shutil.rmtree(out)

    identical = arguments.runs - len(different)
    print(f"{identical} of {arguments.runs} runs identical to the uninterrupted one, {struck.total()} kills:")
    for stage, count in struck.most_common():
        print(f"  {count:3d} {stage}")
    record = {
        "runs": arguments.runs,
        "seed": arguments.seed,
        "identical": identical,
        "runs_by_number_of_kills": dict(sorted(kills.items())),
        "kills_by_stage": dict(struck),
        "files_compared": len(undisturbed),
        "shots": list(SHOTS),
    }
    write_record(record, "kill")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
