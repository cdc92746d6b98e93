"""Which library runs engines on a card: TensorRT or TensorRT-RTX, of which CUDA, and why. One decision for all who ask.

`make engines` and `dc-export` install and build by it, `dc-rt doctor` prints it, and messages name its package.

What it rests on: the support matrices of TensorRT-RTX (compute capabilities 7.5, 8.6, 8.9, 12.0 and 12.1, and what its
1.7 does with our graphs: for 7.5 it cannot build the UNet), the least drivers of CUDA's release notes, and the wheels
that there are: those of CUDA 12 for x86-64 alone.
"""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass

from dc_rt.errors import UserError
from dc_rt.gpu import Card

LIBRARY_NAMES = {"tensorrt": "TensorRT", "rtx": "TensorRT-RTX"}
"""What the flavours of TensorRT are called."""

# What TensorRT-RTX builds for by default. Its documentation says so ("CPU-only AOT"); the builder does not list it.
RTX_TARGETS = ("8.0", "8.6", "8.9", "12.0+")
TURING = (7, 5)
AMPERE = (8, 0)
# Of a compute capability that is no target: cards of data centres, and the modules whose TensorRT comes with JetPack.
JETSON = {(7, 2), (8, 7), (10, 1), (11, 0)}
# The least driver by the CUDA that it runs, by its first number: the same on Linux and on Windows.
LEAST_DRIVER = {13: (580,), 12: (525, 60)}
CURRENT_DRIVER = "580"

FLAVOURS_ASKED = ("auto", "tensorrt", "rtx")


class NoLibrary(UserError):
    """Neither library runs here: `reason`, a clause that goes on from "as", and the fix."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(f"Neither TensorRT nor TensorRT-RTX can be used, as {reason}; {fix}.")
        self.reason = reason
        self.fix = fix


@dataclass(frozen=True)
class Library:
    """What to install and to build with, and why.

    Attributes:
        flavour: "tensorrt" or "rtx".
        cuda: whose library it is built on, 12 or 13.
        targets: compute capabilities that engines are built for, where "12.0+" is this one and later ones.
        reason: a clause that goes on from "as".
    """

    flavour: str
    cuda: int
    targets: tuple[str, ...]
    reason: str

    @property
    def name(self) -> str:
        """What it is called."""
        return LIBRARY_NAMES[self.flavour]

    @property
    def extra(self) -> str:
        """The extra of this package that installs it."""
        return self.flavour if self.cuda == 13 else f"{self.flavour}-cu{self.cuda}"

    @property
    def package(self) -> str:
        """The package that an index has it as."""
        return f"{'tensorrt' if self.flavour == 'tensorrt' else 'tensorrt-rtx'}-cu{self.cuda}"

    def __str__(self) -> str:
        return f"{self.name} for CUDA {self.cuda} ({self.package}), as {self.reason}"


def choose_library(
    card: Card | None, asked: str = "auto", system: str = sys.platform, machine: str | None = None
) -> Library:
    """The library for a card, or to build with where there is none.

    Args:
        card: the GPU; None where there is none.
        asked: "tensorrt" or "rtx" to insist on one, else "auto".
        system: as `sys.platform` has it.
        machine: as `platform.machine()` has it; this one's unless given.

    Raises:
        NoLibrary: the system, the card or its driver has none, or not the one that is asked for.
    """
    if asked not in FLAVOURS_ASKED:
        raise UserError(f"There is no flavour {asked!r}; choose one of {', '.join(FLAVOURS_ASKED)}.")
    machine = (platform.machine() if machine is None else machine).lower()
    arm = machine in ("arm64", "aarch64")
    if system not in ("linux", "win32") or not (arm or machine in ("x86_64", "amd64")):
        raise NoLibrary(
            f"NVIDIA makes neither for {system} on {machine}", "export for ONNX Runtime instead (dc-export onnx)"
        )
    if card is None:
        if asked == "tensorrt":
            raise NoLibrary(
                "TensorRT builds on the GPU that the engines are for, and there is none here",
                "check it with `nvidia-smi`, or take the flavour rtx, which needs none",
            )
        return Library("rtx", 13, RTX_TARGETS, "it builds without a GPU, for GeForce and RTX cards")
    flavour, targets, reason = _for_card(card, asked)
    return Library(flavour, _cuda(card, arm), targets, reason)


def _for_card(card: Card, asked: str) -> tuple[str, tuple[str, ...], str]:
    """Flavour, targets and reason."""
    capability = card.capability
    own = f"{capability[0]}.{capability[1]}"
    if capability < TURING:
        raise NoLibrary(
            f"{card.name} has compute capability {own}, and both need 7.5 (Turing, 2018) or later",
            "use ONNX Runtime on it (`make install-gpu`), or another card",
        )
    if asked == "tensorrt":
        return "tensorrt", (own,), "it is asked for; its engines are tuned on this card"
    if capability == TURING:
        if asked == "rtx":
            raise NoLibrary(
                f"{card.name} has compute capability {own}, for which TensorRT-RTX cannot build the UNet",
                "take the flavour tensorrt, or auto",
            )
        return "tensorrt", (own,), f"{own} is Turing, for which TensorRT-RTX cannot build the UNet"
    if capability > AMPERE and capability[0] in (8, 12) and capability not in JETSON:
        return (
            "rtx",
            RTX_TARGETS,
            f"{own} is one of its targets, and its engines run on all GeForce and RTX cards since Ampere",
        )
    if asked == "rtx" and capability == AMPERE:
        return "rtx", RTX_TARGETS, "it is asked for; it builds for 8.0 and does not list such cards as supported"
    if asked == "rtx":
        raise NoLibrary(
            f"{card.name} has compute capability {own}, which is no target of TensorRT-RTX",
            "take the flavour tensorrt, or auto",
        )
    if capability in JETSON:
        return "tensorrt", (own,), f"{own} is a Jetson module, whose TensorRT comes with JetPack"
    return "tensorrt", (own,), f"{own} is a card for data centres, which TensorRT-RTX does not support"


def _cuda(card: Card, arm: bool) -> int:
    driver = card.driver_version
    update = f"install a driver of version {CURRENT_DRIVER} or later"
    if driver >= LEAST_DRIVER[13]:
        return 13
    if driver < LEAST_DRIVER[12]:
        raise NoLibrary(f"the driver {card.driver} is too old for both, which need 525.60", update)
    if arm:
        raise NoLibrary(f"the driver {card.driver} is of CUDA 12, for which there is nothing on arm64", update)
    return 12
