"""A cluster of two nodes on this machine, of which one dies amid a batch: every video ends as a serial run has it.

    python -m bench.soak.cluster

Both nodes are Ray's, keep to 127.0.0.1, have a processor each and a cache of their own; the second does not see the
folder of the engine set. `dc-rt batch --cluster` runs clips there, each with a seed of its own. Once the second node
has a window of a clip done, all its processes get SIGKILL, and another node comes in its place. Then a second batch
gets Ctrl-C while both nodes run, and is started again. Looks for results that are not those of `dc-rt infer`, clips
that were begun anew in place of being resumed, an engine set that was sent twice to a node, processes that are left,
and sockets that listen on another address. Exits with 1 where there are any; writes bench/results/cluster.json.
Without Ray, or where nothing can be mounted (`unshare`, of Linux), there is nothing to do, and it says so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.clips import DEMO
from bench.records import write_record
from bench.soak.kill import results
from dc_rt.engine.discovery import BUNDLED
from dc_rt.engine.manifest import Manifest
from dc_rt.installation import install_command

LOOPBACK = "127.0.0.1"
NUM_CLIPS = 8
OPTIONS = ("--max-res", "64", "--num-denoising-steps", "1", "--window-size", "12", "--overlap", "4")
# Ray takes another address than 127.0.0.1 where it could be reached by others, unless it is told that there are none.
ENVIRONMENT = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
OBJECT_STORE_BYTES = 100_000_000
WORKER, RUNNER = "dc_rt.job.child", "ray::Runner"  # what runs a video, and Ray's process that has it
SECONDS = 120.0  # for anything that is waited for


class Node:
    """A node of the cluster, as a process of this module's with all that it starts."""

    def __init__(self, folder: Path, hidden: Path | None = None, address: str = "") -> None:
        """The first one, or one of the cluster at `address`; `hidden` is a folder that it is not to see."""
        command = [sys.executable, "-m", "bench.soak.cluster", "--node", str(folder / "ray"), "--address", address]
        if hidden:
            command = [*NAMESPACE, f'mount -t tmpfs none {hidden} && exec "$@"', "sh", *command]
        environment = os.environ | ENVIRONMENT | {"XDG_CACHE_HOME": str(folder / ("cache2" if hidden else "cache1"))}
        began = time.perf_counter()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        self.seconds = time.perf_counter() - began
        if not self.address:
            raise SystemExit("a node of Ray's did not start")

    def pids(self) -> list[int]:
        """Of all its processes."""
        import psutil

        node = psutil.Process(self._process.pid)
        return [node.pid, *(child.pid for child in node.children(recursive=True))]

    def kill(self) -> list[int]:
        """End all its processes as if the machine were gone, so that none says anything of it; which they were."""
        pids = self.pids()
        for how in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                os.kill(pid, how)
        self._process.wait()
        return pids


NAMESPACE = ("unshare", "--map-root-user", "--mount", "sh", "-c")


def be_a_node(folder: str, address: str) -> None:
    """What a node's process does, until its standard input ends."""
    from ray._private.node import Node as RayNode
    from ray._private.parameter import RayParams

    # As `ray start` does, which allows no second node where it keeps to 127.0.0.1.
    params = RayParams(
        node_ip_address=LOOPBACK,
        gcs_address=address or None,
        num_cpus=1,
        num_gpus=0,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        include_log_monitor=not address,
        min_worker_port=0,
        max_worker_port=0,
        temp_dir=folder,
    )
    node = RayNode(params, head=not address, shutdown_at_exit=True, spawn_reaper=True)
    print(node.gcs_address, flush=True)
    sys.stdin.read()


class Batch:
    """`dc-rt batch --cluster`, as its user starts it."""

    def __init__(self, clips: Path, folder: Path, engines: Path, address: str) -> None:
        self.folder = folder
        self.report = folder / "report.json"
        where = ("--save-folder", str(folder), "--engines", str(engines), "--cluster", address)
        command = [sys.executable, "-m", "dc_rt.cli", "batch", str(clips), *OPTIONS, *where]
        self._began = time.perf_counter()
        self._log = folder.with_suffix(".log")
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--report", str(self.report)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | ENVIRONMENT,
            )

    def end(self) -> tuple[int, str, float]:
        """Wait for its end: exit status, all that it printed, and seconds since its beginning."""
        status = self.process.wait(timeout=SECONDS)
        printed = self._log.read_text()
        print(printed, flush=True)
        return status, printed, time.perf_counter() - self._began

    def holders(self) -> dict[str, int]:
        """Which process runs which clip, for those of which a window is done, by their leases."""
        found = {}
        for lease in self.folder.glob(".*.lease-*"):
            name = lease.name.removeprefix(".").partition(".lease-")[0]
            try:
                holder = json.loads(lease.read_text())["holder"]
            except (OSError, ValueError, KeyError):  # it was released in this instant
                continue
            if (self.folder / f".{name}.spool" / "state").exists():
                found[name] = int(holder.split()[1])
        return found

    def notes(self) -> dict[str, str]:
        """What the report says of each video."""
        return {Path(video["video"]).stem: video["note"] for video in json.loads(self.report.read_text())["videos"]}


def serial(folder: Path) -> tuple[dict[str, bytes], Path, float]:
    """Clips and a list of them, with a seed each; the results of `dc-rt infer`, and how long it took."""
    lines = ["video,seed"]
    began = time.perf_counter()
    for seed in range(NUM_CLIPS):
        clip = folder / "in" / f"clip{seed}.mp4"
        clip.parent.mkdir(exist_ok=True)
        shutil.copy(DEMO, clip)
        lines.append(f"{clip.name},{seed}")
        command = [sys.executable, "-m", "dc_rt.cli", "infer", str(clip), *OPTIONS, "--seed", str(seed)]
        where = ("--save-folder", str(folder / "serial"), "--engines", str(BUNDLED))
        subprocess.run([*command, *where], check=True, stdout=subprocess.DEVNULL)
    clips = folder / "in" / "clips.csv"
    clips.write_text("\n".join(lines) + "\n")
    return results(folder / "serial"), clips, time.perf_counter() - began


def another_set(folder: Path) -> Path:
    """The bundled set as one that no node has, as it was made at another time."""
    shutil.copytree(BUNDLED, folder)
    manifest = Manifest.read(folder)
    replace(manifest, created="2026-01-01T00:00:00+00:00").write(folder)
    return folder


def wait_for(what: str, there: Callable[[], Any]) -> Any:
    """What `there` gives once that is something."""
    until = time.monotonic() + SECONDS
    while not (found := there()):
        if time.monotonic() > until:
            raise SystemExit(f"{what} did not happen within {SECONDS:.0f} seconds")
        time.sleep(0.02)
    return found


def pids_of(nodes: Sequence[Node], *titles: str) -> list[int]:
    """The processes of nodes that have one of these titles in their command."""
    import psutil

    found = []
    for pid in (pid for node in nodes for pid in node.pids()):
        try:
            command = " ".join(psutil.Process(pid).cmdline())
        except psutil.Error:  # it has ended
            continue
        if any(title in command for title in titles):
            found.append(pid)
    return found


def listened_on(pids: Sequence[int]) -> set[str]:
    """The addresses on which processes listen."""
    import psutil

    found = set()
    for pid in pids:
        try:
            sockets = psutil.Process(pid).net_connections("inet")
        except psutil.Error:
            continue
        found |= {socket.laddr.ip.removeprefix("::ffff:") for socket in sockets if socket.status == "LISTEN"}
    return found


def memory_of(pids: Sequence[int]) -> int:
    """Bytes that they have for themselves alone."""
    import psutil

    return sum(psutil.Process(pid).memory_full_info().uss for pid in pids)


@contextmanager
def two_nodes(folder: Path, engines: Path) -> Iterator[list[Node]]:
    """A cluster, which is killed at the end."""
    nodes: list[Node] = []
    try:
        nodes.append(Node(folder))
        nodes.append(Node(folder, engines, nodes[0].address))
        yield nodes
    finally:
        for node in reversed(nodes):
            node.kill()


def lose_a_node(folder: Path, clips: Path, engines: Path, nodes: list[Node]) -> tuple[dict[str, Any], list[str]]:
    """Run a batch of which the second node dies, and another one comes; what was seen, and what of it is wrong."""
    batch = Batch(clips, folder / "out", engines, nodes[0].address)
    second = nodes.pop()

    def clip_of_second() -> str:
        pids = second.pids()
        return next((clip for clip, pid in batch.holders().items() if pid in pids), "")

    clip = wait_for("a window on the second node", clip_of_second)
    listened = listened_on([*nodes[0].pids(), *second.pids(), batch.process.pid])
    idle = memory_of([pid for node in (*nodes, second) for pid in node.pids() if pid not in pids_of([node], WORKER)])
    killed = second.kill()
    nodes.append(Node(folder, engines, nodes[0].address))
    status, printed, seconds = batch.end()
    note = batch.notes().get(clip, "")
    seen = {
        "killed_processes": len(killed),
        "clip_that_was_run_there": clip,
        "note": note,
        "seconds": round(seconds, 1),
        "engine_set_sent": [line for line in printed.splitlines() if "engine set was sent" in line],
        "listened_on": sorted(listened),
        "megabytes_of_ray": round(idle / 1e6),
    }
    wrong = []
    if status:
        wrong.append(f"the batch ended with {status}")
    if "resumed after frame" not in note:
        wrong.append(f"{clip} was not resumed")
    if len(seen["engine_set_sent"]) != 1:
        wrong.append("the engine set was not sent once")
    if listened != {LOOPBACK}:
        wrong.append(f"it listened on {sorted(listened)}")
    return seen, wrong


def interrupt(folder: Path, clips: Path, engines: Path, nodes: list[Node]) -> tuple[dict[str, Any], list[str]]:
    """Press Ctrl-C while both nodes run, look for what is left, and start it again."""
    batch = Batch(clips, folder / "again", engines, nodes[0].address)
    wait_for("a window on both nodes", lambda: len(batch.holders()) == len(nodes))
    workers = pids_of(nodes, WORKER)
    began = time.perf_counter()
    batch.process.send_signal(signal.SIGINT)
    wait_for("the end of the children", lambda: not pids_of(nodes, WORKER))
    children = time.perf_counter() - began
    status, printed, _ = batch.end()
    all_of_it = time.perf_counter() - began
    left = pids_of(nodes, WORKER, RUNNER)
    wrong = [] if status == 130 and len(workers) == len(nodes) else [f"Ctrl-C ended {len(workers)} with {status}"]
    wrong += [f"{len(left)} processes are left"] if left else []
    batch = Batch(clips, folder / "again", engines, nodes[0].address)
    status, printed, _ = batch.end()
    resumed = [clip for clip, note in batch.notes().items() if "resumed after frame" in note]
    if status or len(resumed) != len(nodes):
        wrong.append(f"the second batch ended with {status} and resumed {resumed}")
    if "engine set was sent" in printed:
        wrong.append("the engine set was sent to a node that had it")
    seen = {"seconds_to_children": round(children, 1), "seconds_to_end": round(all_of_it, 1), "resumed": resumed}
    return seen, wrong


def main() -> None:
    """Serial, lose a node, Ctrl-C, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node", metavar="DIR", help=argparse.SUPPRESS)
    parser.add_argument("--address", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.node:
        return be_a_node(arguments.node, arguments.address)
    try:
        import ray
    except ImportError:
        return print(f"Ray is not installed, so no cluster is tried; install it with `{install_command('cluster')}`.")
    if not shutil.which("unshare") or subprocess.run([*NAMESPACE, "true"], stderr=subprocess.DEVNULL).returncode:
        return print("No folder can be hidden from a node here (`unshare`), so no cluster is tried.")
    # Short, as the names of sockets are.
    with tempfile.TemporaryDirectory(prefix="dc", dir="/tmp") as temporary:
        folder = Path(temporary)
        engines = another_set(folder / "engines")
        expected, clips, seconds = serial(folder)
        with two_nodes(folder, engines) as nodes:
            starts = [round(node.seconds, 1) for node in nodes]
            lost, wrong = lose_a_node(folder, clips, engines, nodes)
            interrupted, more = interrupt(folder, clips, engines, nodes)
        identical = [results(folder / name) == expected for name in ("out", "again")]
        wrong += more + ([] if all(identical) else [f"identical to the serial run: {identical}"])
    record = {
        "ray": ray.__version__,
        "clips": NUM_CLIPS,
        "files_compared": len(expected),
        "identical": all(identical),
        "seconds_serial": round(seconds, 1),
        "seconds_to_start_a_node": starts,
        "lost_node": lost,
        "interrupted": interrupted,
        "wrong": wrong,
    }
    print(json.dumps(record, indent=2))
    write_record(record, "cluster")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
