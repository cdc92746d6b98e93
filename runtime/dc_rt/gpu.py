"""The GPU as its driver tells of it, through nvidia-smi: it takes no library of ours and opens nothing on the card."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from dc_rt.errors import UserError, option

ENVIRONMENT = "DC_RT_GPU"
"""Names another GPU than this machine's to plan for: a line as `QUERY` gives it without the last column, or "none"."""

QUERY = ("name", "compute_cap", "driver_version", "memory.total", "memory.free", "uuid")
_MIB = 1 << 20


@dataclass(frozen=True)
class Card:
    """A GPU: its name, compute capability, driver, and its memory in bytes, in all and that nobody uses."""

    name: str
    capability: tuple[int, int]
    driver: str
    total_bytes: int
    free_bytes: int

    @property
    def driver_version(self) -> tuple[int, ...]:
        """The driver's version as numbers."""
        return tuple(int(part) for part in self.driver.split(".") if part.isdecimal())

    def __str__(self) -> str:
        major, minor = self.capability
        return f"{self.name}, compute capability {major}.{minor}, driver {self.driver}"


def find_card() -> Card | None:
    """The GPU that CUDA would take, or the one of $DC_RT_GPU to plan for; None where there is none.

    Of several, the first that CUDA_VISIBLE_DEVICES names, else the first that the driver lists.

    Raises:
        UserError: $DC_RT_GPU is of another form.
    """
    if planned := planned_card_line():
        if planned.casefold() == "none":
            return None
        try:
            return _card(planned)
        except ValueError:
            form = "NAME, COMPUTE CAPABILITY, DRIVER, MiB IN ALL, MiB FREE"
            raise UserError(
                f"${ENVIRONMENT} is {planned!r}; give {form}, such as 'NVIDIA GeForce RTX 4090, 8.9, 580.65.06, 24564, "
                "23500', or none."
            ) from None
    lines = _driver_lines()
    if lines is None:
        return None
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is not None:
        first = wanted.split(",")[0].strip()
        lines = [line for number, line in enumerate(lines) if first == str(number) or _is_called(line, first)]
    for line in lines:
        try:
            return _card(line)
        except ValueError:  # "[N/A]", of a card that is lost or too old to have it
            continue
    return None


def check_devices(names: Sequence[str]) -> None:
    """Raise `UserError` for GPUs that are not here: CUDA would say nothing of them, and all would run on the CPU.

    Args:
        names: as CUDA_VISIBLE_DEVICES has them: numbers, or what begins as UUIDs do. Parts of a GPU ("MIG-...") are
            not looked for.
    """
    if not names:
        return
    lines = _driver_lines()
    if lines is None:
        raise UserError(
            f"{option('devices', ','.join(names))} are GPUs, and no NVIDIA driver tells of one here; leave "
            f"{option('devices')} out."
        )
    for name in names:
        is_here = int(name) < len(lines) if name.isascii() and name.isdecimal() else _is_here(name, lines)
        if not is_here:
            some = ", ".join(f"{number} ({line.split(',')[0]})" for number, line in enumerate(lines))
            raise UserError(f"There is no GPU {name} here, of {option('devices')}; there are {some}.")


def _is_here(name: str, lines: Sequence[str]) -> bool:
    return name.startswith("MIG-") or any(_is_called(line, name) for line in lines)


def planned_card_line() -> str:
    """What $DC_RT_GPU says; empty where it says nothing."""
    return os.environ.get(ENVIRONMENT, "").strip()


def check_card_is_here() -> None:
    """Raise `UserError` where $DC_RT_GPU names another machine's card: what is planned for it cannot be run."""
    if planned_card_line():
        raise UserError(f"${ENVIRONMENT} is of a card that is not here; unset it, or add {option('dry_run', True)}.")


def has_driver() -> bool:
    """Whether an NVIDIA driver is installed."""
    return shutil.which("nvidia-smi") is not None


def _driver_lines() -> list[str] | None:
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    query = [command, f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip().splitlines() if answer.returncode == 0 else None


def _is_called(line: str, uuid: str) -> bool:
    return bool(uuid) and line.rpartition(",")[2].strip().startswith(uuid)


def _card(line: str) -> Card:
    """Raises ValueError for what is not a card."""
    name, capability, driver, total, free, *_ = (part.strip() for part in line.split(","))
    major, _, minor = capability.partition(".")
    return Card(name, (int(major), int(minor)), driver, int(total) * _MIB, int(free) * _MIB)
