"""From the graphs of an engine set to TensorRT engines, in both flavours.

`tensorrt` and `tensorrt_rtx` differ by an import and by what they build for: TensorRT for the GPU that is there,
TensorRT-RTX for all that it supports, without needing one. Both are strongly typed: the precision is the graph's.

An engine is built in a process of its own, `python -m dc_export.build JOB`, since a graph that a builder is not made
for can end it with a segmentation fault. What the builder says goes into a log beside the engine, also from a process
that died; the memory that an engine needs is read from there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from dc_export.faults import DISK_FULL, FREE_SPACE
from dc_export.profiles import load_profile
from dc_export.staging import only_one, tidy
from dc_export.tensorrt_only import make_portable, read_timing_cache, write_timing_cache
from dc_rt.engine import GRAPHS, File, Manifest, Profile
from dc_rt.engine.compatibility import MODULES, Unavailable, describe_targets, find_gpu, is_target, this_platform
from dc_rt.engine.manifest import FLAVOURS, LIBRARY_NAMES, Build, BuiltEngine
from dc_rt.errors import UserError
from dc_rt.gpu import Card, find_card
from dc_rt.installation import install_command
from dc_rt.library import RTX_TARGETS, Library, NoLibrary, choose_library
from dc_rt.pipeline import CHUNK
from depthcrafter.report import Report

PORTABLE = ("8.0+",)  # what engines of TensorRT run on that are built for hardware compatibility
TIMING_CACHE = "timing.cache"  # beside the engines
REPORT_SECONDS = 30.0  # between two signs of life of a long build
GB = 1e9
DISK_IS_FULL = 74  # the exit status of a process that builds: that of input and output in sysexits.h


@dataclass(frozen=True)
class Settings:
    """All that an engine is built with, beside its graph; another value of any of these makes another engine."""

    flavour: str
    version: str
    platform: str
    compute_capabilities: tuple[str, ...]
    profile: Profile
    workspace: float | None
    weight_streaming: bool
    portable: bool = False
    this_gpu: bool = False

    @property
    def library(self) -> str:
        """Name and version of the library."""
        return f"{LIBRARY_NAMES[self.flavour]} {self.version}"

    @property
    def flags(self) -> tuple[str, ...]:
        """What the manifest records."""
        return (
            "tf32",
            "single_stream",
            *(["fixed_memory"] if self.fixed_memory else []),
            *(["weight_streaming"] if self.weight_streaming else []),
            *(["portable"] if self.portable else []),
            *(["this_gpu"] if self.this_gpu else []),
            *([f"workspace={self.workspace:g}GB"] if self.workspace is not None else []),
        )

    @property
    def fixed_memory(self) -> bool:
        """Whether memory is laid out for the largest shape, and not anew for every shape that is run.

        A plan for one shape lets tensors of different sizes share memory, which takes half as much at that shape, and
        then as much at all others: good where but the number of frames varies.
        """
        return all(shape.is_fixed for shape in self.profile.shapes)

    def key(self, files: tuple[File, ...]) -> str:
        """Hash of what an engine is built from and with."""
        made_with = dataclasses.asdict(self) | {
            "flags": self.flags,
            "files": [dataclasses.asdict(file) for file in files],
        }
        return hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()

    def shapes(self) -> list[dict[str, tuple[int, int, int]]]:
        """Smallest, best and largest value of every axis, by its name in the graphs, for each optimisation profile.

        The denoiser takes a window of T frames, the other graphs n frames at a time, as `dc_rt.pipeline` gives them.
        """
        frames = self.profile.frames
        found = []
        for shape in self.profile.shapes:
            sides = {"H": shape.height, "W": shape.width}
            pixels = {name: (side.min, side.opt, side.max) for name, side in sides.items()}
            latents = {name.lower(): (low // 8, opt // 8, high // 8) for name, (low, opt, high) in pixels.items()}
            counts = {"n": (1, CHUNK, CHUNK), "T": (frames.min, frames.opt, frames.max)}
            found.append({**counts, **pixels, **latents})
        return found


def build_engines(
    engines: str | os.PathLike[str],
    *,
    flavour: str = "auto",
    profile: str | None = None,
    workspace: float | None = None,
    low_memory: bool = False,
    weight_streaming: bool = False,
    portable: bool = False,
    this_gpu: bool = False,
    report: Report = print,
) -> Manifest:
    """Build the TensorRT engines of an engine set, those that are not there yet or were made from or with other things.

    The manifest is written after every engine, so that an interrupted build goes on where it was.

    Args:
        engines: folder of the engine set.
        flavour: "tensorrt", which needs the GPU that the engines are for; "rtx", which needs none; or "auto": the one
            for this machine's card (`dc_rt.library`), or the other where that alone is installed.
        profile: name of the size profile to build for; the one that the graphs were exported for unless given.
        workspace: most memory that a single layer may take for itself, in GB; no limit unless given.
        low_memory: insist on graphs in the form that trades time for memory (`export_onnx(..., low_memory=True)`).
        weight_streaming: make engines whose weights need not all be on the GPU at once.
        portable: make engines for all cards from Ampere on, not for the one that is here alone. Where there is none,
            those of TensorRT-RTX are so in any case.
        this_gpu: insist on engines for the GPU that is here: TensorRT-RTX builds without one too, and then for all.
        report: is told of every long step.

    Returns:
        The manifest, with the engines.

    Raises:
        UserError: the set is not whole, the library is not there, another process is working on the set, or an engine
            cannot be built: with where its log is.
        OSError: the disk refuses.
    """
    folder = Path(engines)
    Manifest.read(folder)  # where there is no set, nothing can be locked either
    with only_one(folder):
        tidy(folder)
        return _build_all(folder, flavour, profile, workspace, low_memory, weight_streaming, portable, this_gpu, report)


def _build_all(
    folder: Path,
    flavour: str,
    profile: str | None,
    workspace: float | None,
    low_memory: bool,
    weight_streaming: bool,
    portable: bool,
    this_gpu: bool,
    report: Report,
) -> Manifest:
    manifest = Manifest.read(folder)
    if workspace is not None and not 0 < workspace < float("inf"):
        raise UserError(f"The workspace must be a number of GB above 0, not {workspace:g}; leave it out for no limit.")
    if low_memory and not manifest.low_memory:
        raise UserError(
            f"The graphs in {folder} are not in the form that saves memory; export them with `dc-export onnx --target "
            "tensorrt --low-memory`, then build again."
        )
    flavour, targets = choose_flavour(flavour, portable, this_gpu, report)
    settings = Settings(
        flavour=flavour,
        version=_import(flavour).__version__,
        platform=this_platform(),
        compute_capabilities=targets,
        profile=load_profile(profile) if profile else manifest.profile,
        workspace=workspace,
        weight_streaming=weight_streaming,
        portable=portable and flavour == "tensorrt",
        this_gpu=flavour == "rtx" and targets != RTX_TARGETS,
    )
    manifest.check_contents(folder)
    keys = {graph: settings.key(manifest.graphs[graph]) for graph in GRAPHS}
    previous = manifest.builds[flavour].engines if flavour in manifest.builds else {}
    current = {
        graph: engine
        for graph, engine in previous.items()
        if engine.key == keys[graph] and _is_unchanged(folder, engine.file)
    }
    if manifest.target != "tensorrt" or settings.profile != manifest.profile:  # else the export has checked it
        for graph in GRAPHS:
            _check_sizes(folder / manifest.file(graph), settings.profile)
    for number, graph in enumerate(GRAPHS, 1):

        def tell(text: str, label: str = f"[{number}/{len(GRAPHS)}] {graph}") -> None:
            report(f"{label}: {text}")

        if graph in current:
            tell("there already, and nothing that it is made from or with has changed")
            continue
        tell(f"building with {settings.library} for the profile {settings.profile.name}")
        part, seconds = _build_apart(folder, manifest, graph, settings, tell)
        target = part.with_suffix("")
        # First without the engine that is to be replaced, so that the manifest is true whenever this is interrupted.
        _record(manifest, settings, current).write(folder)
        part.replace(target)
        weights, activations = _memory(target.with_suffix(".log"), len(settings.profile.shapes))
        largest = max(activations, default=0)
        current[graph] = BuiltEngine(File.of(target), keys[graph], seconds, weights, largest, activations)
        _record(manifest, settings, current).write(folder)
        tell(
            f"{target.stat().st_size / 1e6:.1f} MB in {seconds:.0f} s; on the GPU it takes {weights / 1e6:.1f} MB for "
            f"weights and up to {largest / 1e6:.1f} MB for activations"
        )
    return _record(manifest, settings, current)


def choose_flavour(
    asked: str, portable: bool = False, this_gpu: bool = False, report: Report = print
) -> tuple[str, tuple[str, ...]]:
    """The flavour to build, and the compute capabilities of the GPUs that its engines will be for.

    TensorRT-RTX builds for the GPU that is here, whose engines run faster than those for all of its targets, and for
    these where there is none.

    Raises:
        UserError: there is no such flavour, or it cannot build here.
    """
    if this_gpu and portable:
        raise UserError("--this-gpu is for one card, and --portable for all; give one of them.")
    card, capability = find_card(), _gpu_capability()
    if this_gpu and capability is None:
        raise UserError(
            "Engines for this GPU need it and its driver, and CUDA finds none here; check it with `nvidia-smi`, or "
            "leave --this-gpu out, which builds for all cards of TensorRT-RTX."
        )
    if this_gpu and asked == "rtx" and capability and find_spec(MODULES["rtx"]):
        # On a card that is not among its targets this is the one thing to try.
        return "rtx", (capability,)
    library = choose_library(card, asked)
    if not find_spec(MODULES[library.flavour]):
        library = _other(library, card, asked)
    report(str(library))
    if library.flavour == "rtx":
        return "rtx", (capability,) if capability and not portable else library.targets
    if capability is None:
        raise UserError(
            "TensorRT builds on the GPU that the engines are for, and none is found here; check it with "
            f"`nvidia-smi`, or build with --flavour rtx, which needs none (`{install_command('rtx')}`)."
        )
    if not portable:
        return "tensorrt", (capability,)
    if not is_target(_numbers(capability), PORTABLE):
        raise UserError(
            f"Portable engines are for compute capability {describe_targets(PORTABLE)}, and this GPU has {capability}; "
            "build without --portable."
        )
    return "tensorrt", PORTABLE


def _other(library: Library, card: Card | None, asked: str) -> Library:
    """The other library, where that one is installed and does; raises `UserError` where there is none to build with."""
    for flavour in FLAVOURS:
        if asked == "auto" and flavour != library.flavour and find_spec(MODULES[flavour]):
            with suppress(NoLibrary):
                return choose_library(card, flavour)
    raise UserError(
        f"{library.name} is not installed, which is what builds here, as {library.reason}; install it with "
        f"`{install_command(library.extra)}`."
    )


def _numbers(capability: str) -> tuple[int, int]:
    major, _, minor = capability.partition(".")
    return int(major), int(minor)


def _gpu_capability() -> str | None:
    """Compute capability of the GPU that CUDA would use, such as "8.6"; None where there is none."""
    try:
        major, minor = find_gpu().capability
    except Unavailable:
        return None
    return f"{major}.{minor}"


def _import(flavour: str) -> Any:
    try:
        return import_module(MODULES[flavour])
    except (ImportError, OSError) as error:
        raise UserError(
            f"{LIBRARY_NAMES[flavour]} is installed and cannot be loaded ({str(error).splitlines()[0]}); install it "
            f"anew with `{install_command(flavour, again=True)}`."
        ) from error


def _is_unchanged(folder: Path, file: File) -> bool:
    path = folder / file.name
    return path.is_file() and path.stat().st_size == file.bytes and File.of(path) == file


def _check_sizes(path: Path, profile: Profile) -> None:
    from dc_export.tensor_sizes import check_tensor_sizes  # here, since the process that builds does without onnx

    check_tensor_sizes(path, profile)


def _record(manifest: Manifest, settings: Settings, engines: Mapping[str, BuiltEngine]) -> Manifest:
    """`manifest` with `engines` for those of the flavour that was built."""
    build = Build(
        version=settings.version,
        platform=settings.platform,
        compute_capabilities=settings.compute_capabilities,
        flags=settings.flags,
        profile=settings.profile,
        engines={graph: engines[graph] for graph in GRAPHS if graph in engines},
    )
    return dataclasses.replace(manifest, builds={**manifest.builds, settings.flavour: build})


def _build_apart(
    folder: Path, manifest: Manifest, graph: str, settings: Settings, report: Report
) -> tuple[Path, float]:
    """Build one engine in a process of its own: its file, still with the suffix .part, and the seconds it took."""
    engine = folder / f"{graph}.{settings.flavour}.engine"
    part, log = engine.with_suffix(".engine.part"), engine.with_suffix(".log")
    job = {
        "module": MODULES[settings.flavour],
        "graph": str(folder / manifest.file(graph)),
        "engine": str(part),
        "shapes": settings.shapes(),
        "workspace": settings.workspace,
        "weight_streaming": settings.weight_streaming,
        "portable": settings.portable,
        # TensorRT-RTX measures nothing when it builds.
        "timing_cache": str(folder / TIMING_CACHE) if settings.flavour == "tensorrt" else None,
        "fixed_memory": settings.fixed_memory,
        "this_gpu": settings.this_gpu,
    }
    # -P: a folder of the user's that is called like a module of ours is none.
    command = [sys.executable, "-P", "-X", "faulthandler", "-m", "dc_export.build", json.dumps(job)]
    began = time.perf_counter()
    try:
        with log.open("wb") as stream, _start(command, stream) as process:
            try:
                while (status := _wait(process, REPORT_SECONDS)) is None:
                    report(f"still building, for {time.perf_counter() - began:.0f} s now")
            except BaseException:
                process.kill()
                raise
        if status:
            raise UserError(_failure(status, graph, log, manifest, settings))
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return part, time.perf_counter() - began


def _start(command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    # Nothing is written to its input: its end tells the process that this one is gone.
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _failure(status: int, graph: str, log: Path, manifest: Manifest, settings: Settings) -> str:
    """What happened to the process that was to build `graph`, where its log is, and what to try."""
    fix = "try a profile of fewer frames or pixels (--profile)"
    if status == DISK_IS_FULL:
        return f"Building {graph} with {settings.library} has filled the disk of {log.parent}; {FREE_SPACE}."
    if -status == getattr(signal, "SIGKILL", None):
        what = "was killed, as a system does when its memory runs out"
        fix = f"close other programs, or {fix}"
    else:
        text = log.read_text(errors="replace").strip() if log.is_file() else ""
        # Later errors follow from the first; an error of ours or of Python's is the last line.
        errors = re.findall(r"^ *[\d.]+ s \[(?:INTERNAL_)?ERROR\] (.*?)\.?$", text, re.M)
        if not errors and status > 0:
            errors = text.splitlines()[-1:]
        reason = f" ({errors[0]})" if errors else ""
        what = f"died of {signal.Signals(-status).name}{reason}" if status < 0 else f"failed{reason}"
        if manifest.target != "tensorrt":
            fix = "export the graphs in a form that it is made for (dc-export onnx --target tensorrt)"
        elif settings.workspace is not None:
            fix = f"raise --workspace, or {fix}"
        else:
            fix += ", or export the graphs again (dc-export onnx --target tensorrt)"
    return f"Building {graph} with {settings.library} {what}; its log is {log}: {fix}."


def _memory(log: Path, num_shapes: int) -> tuple[int, tuple[int, ...]]:
    """Bytes of weights, and of activations at each shape, by the builder's own count; 0 and none where it says none.

    It says the activations of one optimisation profile after the other. Where these are not as many as there should
    be, which is whose is not known: each shape is then taken to need the most.
    """
    text = log.read_text(errors="replace") if log.is_file() else ""

    def totals(kind: str) -> list[int]:
        return [int(count) for count in re.findall(rf"Total {kind} Memory: (\d+)", text)]

    activations = totals("Activation")
    if activations and len(activations) != num_shapes:
        activations = [max(activations)] * num_shapes
    return max(totals("Weights"), default=0), tuple(activations)


# From here on: what the process does that builds an engine.


def _build(job: Mapping[str, Any]) -> None:
    """Build one engine; an error is in the log, and the exit status is 1, or `DISK_IS_FULL`."""
    try:
        _build_engine(job)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        os._exit(DISK_IS_FULL)  # at once: an ordinary end would write to the log


def _build_engine(job: Mapping[str, Any]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    trt = import_module(job["module"])
    logger = _make_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(job["graph"]):
        sys.exit(1)
    config = builder.create_builder_config()
    config.set_flag(trt.BuilderFlag.TF32)  # for graphs in float32, and what is in float32 in others
    # Slices that save memory would be spread over several streams, and be in memory together after all.
    config.max_aux_streams = 0
    resize = getattr(trt.PreviewFeature, "RUNTIME_ACTIVATION_RESIZE_10_10", None)  # not in every version
    if job["fixed_memory"] and resize is not None:
        config.set_preview_feature(resize, False)
    if job["workspace"] is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(job["workspace"] * GB))
    if job["weight_streaming"]:
        config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)
    if job["this_gpu"]:
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.CURRENT, 0)
    if job["portable"]:
        make_portable(trt, config)
    cache = Path(job["timing_cache"]) if job["timing_cache"] else None
    if cache:
        read_timing_cache(config, cache)
    for shapes in job["shapes"]:
        profile = builder.create_optimization_profile()
        for tensor in map(network.get_input, range(network.num_inputs)):
            if sizes := _input_shapes(tensor, shapes):
                profile.set_shape(tensor.name, *sizes)
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        # TensorRT keeps files of its own for a while, and says of a full disk what the system says.
        if any("No space left on device" in error for error in logger.errors):
            os._exit(DISK_IS_FULL)
        sys.exit(1)
    Path(job["engine"]).write_bytes(engine)
    if cache:
        write_timing_cache(config, cache)


def _end_with_parent() -> None:
    """End this process, which may hold many gigabytes, as soon as nobody waits for it, however that came about."""
    os.read(0, 1)  # not through sys.stdin, whose lock Python would wait for at its end
    os._exit(1)


def _input_shapes(tensor: Any, sizes: Mapping[str, tuple[int, int, int]]) -> list[tuple[int, ...]]:
    """Smallest, best and largest shape of an input; none if it has but one."""
    shape = tuple(tensor.shape)
    if -1 not in shape:
        return []
    axes = [sizes[tensor.get_dimension_name(axis)] if size == -1 else (size,) * 3 for axis, size in enumerate(shape)]
    return list(zip(*axes, strict=True))


def _make_logger(trt: Any) -> Any:
    began = time.perf_counter()

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.errors.append(message)
            if severity != trt.ILogger.Severity.VERBOSE:
                line = f"{time.perf_counter() - began:8.2f} s [{severity.name}] {message}\n"
                # At once, so that it is there whatever happens next; and without an error of its own where the disk is
                # full: TensorRT would end with it.
                with suppress(OSError):
                    os.write(1, line.encode())

    return Logger()


if __name__ == "__main__":
    _build(json.loads(sys.argv[1]))
