"""What this machine can run, and what to do for more."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from dc_rt.attention import ATTENTIONS, lacking
from dc_rt.engine import tensorrt
from dc_rt.engine.compatibility import MODULES, Unavailable, check_build, find_gpu, installed_cuda, load_library
from dc_rt.engine.discovery import BUNDLED, ENGINES_FOLDER, choose_engines, find_engines
from dc_rt.engine.manifest import FLAVOURS, LIBRARY_NAMES, Manifest
from dc_rt.errors import UserError, option
from dc_rt.gpu import find_card
from dc_rt.installation import gpu_command, install_command, onnx_runtimes, pip_install, pip_uninstall
from dc_rt.library import NoLibrary, choose_library


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for: whether it is there, what was found, and what to do about it.

    In both texts options are marked, for whoever shows them to word (see `dc_rt.errors.worded`).
    """

    ok: bool
    what: str
    found: str
    advice: str = ""


def examine() -> Iterator[Finding]:
    """Look at the machine, the backends and the engine sets, in that order."""
    yield Finding(True, "dc-rt", f"{_version('depthcrafter-rt')} on Python {platform.python_version()}, {sys.platform}")
    yield Finding(True, "processor", f"{os.cpu_count()} cores, {platform.machine()}")
    yield _gpu()
    yield _library()
    yield _onnx_runtime()
    yield _tensorrt()
    yield _torch()
    yield _video_encoder()
    yield from _engine_sets()


def _gpu() -> Finding:
    if not shutil.which("nvidia-smi"):
        return Finding(False, "GPU", "no NVIDIA driver", "none is needed for the CPU; with one, install its driver")
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version,compute_cap", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    gpus = "; ".join(answer.stdout.strip().splitlines())
    if answer.returncode or not gpus:
        return Finding(False, "GPU", "nvidia-smi finds none", "check the driver: nvidia-smi")
    return Finding(True, "GPU", gpus)


def _library() -> Finding:
    """Which of TensorRT's flavours is for this machine, whether it is here, and the one command if not."""
    try:
        card = find_card()
        library = choose_library(card)
    except NoLibrary as error:
        return Finding(False, "library", f"none, as {error.reason}", error.fix)
    except UserError as error:
        return Finding(False, "library", "not known", error.sentence)
    found = f"for {card or 'this machine'}: {library}"
    command = install_command(library.extra)
    if not find_spec(MODULES[library.flavour]):
        return Finding(card is None, "library", f"{found}; not installed", f"to build or run engines: {command}")
    installed = installed_cuda(library.flavour)
    if card and installed and installed != library.cuda:
        package = library.package.replace(str(library.cuda), str(installed))
        other = [package, f"{package}-bindings", f"{package}-libs"]
        fix = f"{pip_uninstall(*other)} && {command}"
        return Finding(False, "library", f"{found}; that of CUDA {installed} is installed", fix)
    if not _has("cuda.bindings"):
        return Finding(card is None, "library", f"{found}; cuda-bindings is not installed", command)
    return Finding(True, "library", f"{found}; installed")


def _onnx_runtime() -> Finding:
    import onnxruntime

    from dc_rt.engine.providers import CUDA, available_providers

    names, providers = onnx_runtimes(), available_providers()
    found = f"{onnxruntime.__version__} ({option('provider')}: {', '.join(providers)})"
    if len(names) > 1:
        both = f"{' and '.join(names)} lie over one another: they are one module"
        return Finding(False, "onnx", f"{found}; {both}", f"for an NVIDIA GPU: {gpu_command()}")
    if CUDA in providers.values():
        return Finding(True, "onnx", found)
    if CUDA in onnxruntime.get_available_providers():
        return Finding(False, "onnx", f"{found}, but CUDA does not work", "check the driver: nvidia-smi")
    return Finding(True, "onnx", found, f"for an NVIDIA GPU: {gpu_command()}")


def _tensorrt() -> Finding:
    installed = [flavour for flavour in FLAVOURS if find_spec(MODULES[flavour])]
    if not installed:
        return Finding(False, "tensorrt", "not installed", "for an NVIDIA GPU: see library above")
    found = ", ".join(LIBRARY_NAMES[flavour] for flavour in installed)
    try:
        found = ", ".join(f"{LIBRARY_NAMES[flavour]} {load_library(flavour).__version__}" for flavour in installed)
        gpu = find_gpu()
    except Unavailable as error:
        return Finding(False, "tensorrt", f"{found}, but {error.reason}", error.fix)
    return Finding(True, "tensorrt", f"{found} on {gpu}")


def _torch() -> Finding:
    if find_spec("torch") and find_spec("diffusers"):
        able = ", ".join(name for name in ATTENTIONS if not lacking(name))
        found = f"{_version('torch')}, the reference: {option('backend', 'torch')} ({option('attention')}: {able})"
        return Finding(True, "torch", found, "; ".join(_more_attention()))
    return Finding(False, "torch", "not installed", f"to export or to compare: {install_command('export')}")


def _more_attention() -> Iterator[str]:
    for name, way in ATTENTIONS.items():
        if what := lacking(name):
            installed = not way.package or find_spec(way.package)
            fix = "" if installed else f"; on an NVIDIA GPU: {install_command(way.package)}"
            yield f"{option('attention', name)}: {what}{fix}"


def _video_encoder() -> Finding:
    import av

    if "libx264" in av.codecs_available:
        return Finding(True, "video", f"PyAV {av.__version__} with libx264")
    return Finding(False, "video", f"PyAV {av.__version__} without libx264", pip_install("--upgrade", "av"))


def _engine_sets() -> Iterator[Finding]:
    complete, skipped = find_engines(ENGINES_FOLDER)
    chosen, reason = choose_engines(None)
    for folder in dict.fromkeys((BUNDLED, *complete, chosen)):
        used = f"used unless {option('engines')} names another: {reason}" if folder == chosen else ""
        yield from _engine_set(folder, used)
    for folder, sentence in skipped.items():
        yield Finding(False, "engines", f"{folder}: left out", sentence)


def _engine_set(folder: Path, used: str) -> Iterator[Finding]:
    """What a set can be run as: TensorRT's engines, if it has any, then the graphs; the first that can be is used."""
    try:
        manifest = Manifest.read(folder)
    except UserError as error:
        yield Finding(False, "engines", str(folder), error.sentence)
        return
    for flavour in [*(flavour for flavour in FLAVOURS if flavour in manifest.builds), manifest.flavour]:
        finding = _variant(folder, manifest, flavour, used)
        used = "" if finding.ok else used
        yield finding


def _variant(folder: Path, manifest: Manifest, flavour: str, used: str) -> Finding:
    profile = manifest.builds[flavour].profile if flavour in manifest.builds else manifest.profile
    found = f"{folder}: {manifest.model.name}, {flavour} {manifest.precision}, profile {profile.name}"
    try:
        if flavour in manifest.builds:
            built = check_build(folder, manifest, flavour, named=True)
            # Judges their headers, and loads nothing.
            tensorrt.open_engines(folder, built, "none")
        else:
            manifest.check_contents(folder)
    except Unavailable as error:
        return Finding(False, "engines", f"{found}: not used, as {error.reason}", error.fix)
    except UserError as error:
        return Finding(False, "engines", found, error.sentence)
    return Finding(True, "engines", found, used)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _has(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that it would be in
        return False
