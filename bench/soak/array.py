"""The recipe for array jobs, on processes in the place of nodes: two die and come back, and nothing is done twice.

    python -m bench.soak.array --rounds 3 --seed 0

Four nodes run one command, `dc-rt batch` with a worker on a shared folder, as the script of docs/cluster.md has Slurm
do it. At random instants two of them die, all their processes at once, and are started again later. In the end all
results must be those of `dc-rt infer`, bit for bit, each video must have been finished once, every node must have
listed the bad one, and nothing hidden may be left. Exits with 1 if anything is otherwise; writes
bench/results/array.json. For Linux; as root, each node takes itself for a machine of its own, so that nobody sees that
another one's process has died, but only that it is silent.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.many import CLIPS
from bench.processes import kill_family
from bench.records import write_record
from bench.soak.batch import LEASE_SECONDS, Batch, held, stage_of, try_each

NODES = 4
DEATHS = 2
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def as_machine(folder: Path, node: int) -> list[str]:
    """What a command begins with to be run as on a machine of its own, for which it takes root; nothing without."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return []
    identity = folder / f"node{node}"
    identity.write_text(f"node {node}\n")
    return ["unshare", "--mount", "sh", "-c", f"mount --bind '{identity}' {BOOT_ID} && exec \"$@\"", "sh"]


def run(videos: Path, results: Path, rng: random.Random) -> tuple[list[str], dict[str, Any]]:
    """All nodes until the last has ended; what is wrong, and what was seen."""

    def start(node: int) -> Batch:
        return Batch(videos, results, f"node{node}", workers=1, prefix=as_machine(results.parent, node))

    nodes = {node: start(node) for node in range(NODES)}
    deaths = []
    for node in rng.sample(range(NODES), DEATHS):
        # It dies amid a video, and leaves others time to take that over before it comes back, or does not.
        nodes[node].wait_for_lease(results)
        time.sleep(rng.uniform(0, 1.5))
        leases = [held(results)[id_] for id_ in nodes[node].workers if id_ in held(results)]
        kill_family(nodes[node].process.pid)
        nodes[node].process.wait()
        deaths.append(stage_of(leases[0]) if leases else "between two videos")
        time.sleep(rng.uniform(0, 2 * LEASE_SECONDS))
        nodes[node] = start(node)
    wrong = [sentence for batch in nodes.values() for sentence in batch.end()]
    finished = [len(batch.videos("finished")) for batch in nodes.values()]
    return wrong, {"deaths": deaths, "finished_by_each_since_it_came_back": finished}


def main() -> None:
    """Run, kill, compare, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)

    rounds, num_files = try_each(((f"round {number}", {}, run) for number in range(arguments.rounds)), rng)
    whole = sum(not each["wrong"] for each in rounds)
    with tempfile.TemporaryDirectory() as name:
        is_own = bool(as_machine(Path(name), 0))
    kind = "machines of their own" if is_own else "processes of one machine"
    print(f"{whole} of {len(rounds)} arrays of {NODES} nodes ({kind}) gave the results of serial runs, each made once")
    record = {
        "seed": arguments.seed,
        "videos": len(CLIPS) + 1,
        "nodes": NODES,
        "machines_of_their_own": is_own,
        "lease_seconds": LEASE_SECONDS,
        "files_compared": num_files,
        "identical_and_done_once": whole,
        "rounds": rounds,
    }
    write_record(record, "array")
    sys.exit(whole < len(rounds))


if __name__ == "__main__":
    main()
