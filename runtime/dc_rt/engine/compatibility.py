"""Whether the TensorRT engines of a set can run here; if not, why, and which command is the fix.

Nothing is deserialised to find out: the manifest says what the engines were built with and for.
"""

from __future__ import annotations

import functools
import platform
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dc_rt.engine import cuda
from dc_rt.engine.manifest import FLAVOURS, LIBRARY_NAMES, Build, Manifest
from dc_rt.errors import UserError, option
from dc_rt.gpu import find_card, has_driver
from dc_rt.installation import install_command, pip_install
from dc_rt.library import CURRENT_DRIVER, choose_library

MODULES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}


class Unavailable(UserError):
    """TensorRT cannot run an engine set here: `reason`, a clause that goes on from "as", and the fix."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(f"TensorRT cannot be used, as {reason}; {fix}, or use {option('backend', 'onnx')}.")
        self.reason = reason
        self.fix = fix


def choose_build(folder: Path, manifest: Manifest, named: bool) -> Manifest:
    """The set with the TensorRT engines that can run here for graphs, their files checked byte for byte.

    Args:
        folder: the engine set.
        manifest: what is in it.
        named: whether the user asks for TensorRT: files are then checked even where there is no GPU to run them.

    Raises:
        Unavailable: none of its engines can run here.
        UserError: a file is missing, incomplete or changed.
    """
    failures = {}
    for flavour in [flavour for flavour in FLAVOURS if flavour in manifest.builds]:
        try:
            return check_build(folder, manifest, flavour, named)
        except Unavailable as error:
            failures[flavour] = error
    for flavour, failure in failures.items():
        # Of two flavours, tell of the one that is installed.
        if find_spec(MODULES[flavour]) or len(failures) == 1:
            raise failure
    if failures:
        raise failures[FLAVOURS[0]]
    raise Unavailable("this set has no engines for it", f"build them with `dc-export build {folder}`")


def check_build(folder: Path, manifest: Manifest, flavour: str, named: bool) -> Manifest:
    """Do for one flavour what `choose_build` does for all that there are."""
    check_library(folder, manifest, flavour)
    built = manifest.built(flavour)
    # By name, damage is told of even where there is no GPU; else gigabytes are read only where they will be used.
    if named:
        built.check_contents(folder)
    check_gpu(folder, manifest.builds[flavour], flavour)
    if not named:
        built.check_contents(folder)
    return built


def check_library(folder: Path, manifest: Manifest, flavour: str) -> None:
    """Raise `Unavailable` unless the library is here that the engines of `flavour` were built with."""
    library, build = LIBRARY_NAMES[flavour], manifest.builds[flavour]
    again = f"build them again here with `{_build_command(folder, flavour)}`"
    if not build.whole:
        raise Unavailable(
            f"not all of this set's {library} engines are there", f"run `{_build_command(folder, flavour)}`"
        )
    if build.platform != this_platform():
        raise Unavailable(f"this set's engines were built for {build.platform}, and this is {this_platform()}", again)
    if not find_spec(MODULES[flavour]):
        reason, fix = (
            f"this set's engines are for {library}, which is not",
            f"`{install_command(extra_for(flavour))}`",
        )
        for other in FLAVOURS:
            if find_spec(MODULES[other]):
                raise Unavailable(
                    f"{reason} installed but {LIBRARY_NAMES[other]} is",
                    f"build some for that with `{_build_command(folder, other)}`, run {fix}",
                )
        raise Unavailable(f"{reason} installed", f"run {fix}")
    installed = load_library(flavour).__version__
    if version_numbers(build.version) != version_numbers(installed):
        raise Unavailable(
            f"this set's engines were built with {library} {build.version}, and {installed} is installed", again
        )


def check_gpu(folder: Path, build: Build, flavour: str) -> None:
    """Raise `Unavailable` unless there is a GPU, and one that the engines were built for."""
    gpu = find_gpu()
    if not is_target(gpu.capability, build.compute_capabilities):
        targets = describe_targets(build.compute_capabilities)
        raise Unavailable(
            f"this set's engines were built for compute capability {targets}, and the GPU is another ({gpu})",
            f"build them again here with `{_build_command(folder, flavour)}`",
        )


def find_gpu() -> cuda.Gpu:
    """The GPU that TensorRT would use; raises `Unavailable` where there is none."""
    try:
        return cuda.find_gpu()
    except ImportError as error:
        raise Unavailable("cuda-bindings is not installed", f"run `{pip_install('cuda-bindings')}`") from error
    except cuda.CudaError as error:
        if error.name == "cudaErrorNoDevice":
            raise Unavailable("the NVIDIA driver finds no GPU", "check it with `nvidia-smi`") from error
        if error.name == "cudaErrorInsufficientDriver":
            raise _driver_too_old() from error
        raise Unavailable(f"CUDA does not work ({error})", "check the driver with `nvidia-smi`") from error


def _driver_too_old() -> Unavailable:
    """What it is that CUDA calls an insufficient driver, which it also does where there is none."""
    card = find_card() if has_driver() else None
    if card is None:
        return Unavailable("there is no NVIDIA driver, or one too old", "install a current one")
    later = f"install a driver of version {CURRENT_DRIVER} or later"
    try:
        library = choose_library(card)
    except UserError:
        return Unavailable(f"the driver {card.driver} is too old", later)
    if _cuda_of_bindings() <= library.cuda:
        return Unavailable(f"CUDA does not take the driver {card.driver}", "install a current one")
    return Unavailable(
        f"the driver {card.driver} is of CUDA {library.cuda}, and what is installed is of CUDA {_cuda_of_bindings()}",
        f"run `{install_command(library.extra)}`, or {later}",
    )


def _cuda_of_bindings() -> int:
    """The first number of the CUDA that cuda-bindings is of."""
    return version_numbers(version("cuda-bindings"))[0]


def extra_for(flavour: str) -> str:
    """The extra of this package that installs a flavour for this machine's driver."""
    try:
        return choose_library(find_card(), flavour).extra
    except UserError:  # it is none for this card, which is not what was asked
        return flavour


def installed_cuda(flavour: str) -> int | None:
    """Of which CUDA the installed library is, 12 or 13, by the name of its package; None where none tells."""
    base = "tensorrt" if flavour == "tensorrt" else "tensorrt-rtx"
    for cuda_version in (13, 12):
        with suppress(PackageNotFoundError):
            distribution(f"{base}-cu{cuda_version}-bindings")
            return cuda_version
    return None


@functools.cache
def load_library(flavour: str) -> Any:
    """The Python module of a flavour; raises `Unavailable` where it is installed and does not load."""
    try:
        return import_module(MODULES[flavour])
    except (ImportError, OSError) as error:
        what = f"{LIBRARY_NAMES[flavour]} is installed and cannot be loaded ({str(error).splitlines()[0]})"
        raise Unavailable(what, f"run `{install_command(flavour, again=True)}`") from error


def this_platform() -> str:
    """What an engine's platform must equal: the system and the processor's architecture."""
    return f"{sys.platform}-{platform.machine().lower()}"


def version_numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version, "1.7.1.116" or "11.0.0.21.post1" for example, without what follows the fourth.

    Engines of one version do not load in another, not even where only the last number differs.
    """
    return tuple(int(number) for number in re.findall(r"\d+", version)[:4])


def is_target(capability: tuple[int, int], targets: Iterable[str]) -> bool:
    """Whether engines for `targets`, as "8.6" or "12.0+" for this one and later ones, run on a GPU of `capability`."""
    for target in targets:
        if match := re.fullmatch(r"(\d+)\.(\d+)(\+?)", target):
            wanted = (int(match[1]), int(match[2]))
            if capability == wanted or (match[3] and capability > wanted):
                return True
    return False


def describe_targets(targets: Iterable[str]) -> str:
    """ "8.0, 8.6 and 12.0 or later", for example."""
    *others, last = [target.replace("+", " or later") for target in targets] or ["none"]
    return f"{', '.join(others)} and {last}" if others else last


def _build_command(folder: Path, flavour: str) -> str:
    return f"dc-export build {folder} --flavour {flavour}"
