"""Ways to do the same thing, timed in turns: by CUDA's events on a GPU, by the clock on the CPU.

PyTorch is imported where it is used: this is imported by processes that must not hold it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from bench.children import sentence
from bench.gpu_check.rows import FAILED, MEASURED, SKIPPED, Row

Work = Callable[[], object]
LEAST, MOST = 3, 30  # runs of a way
# What PyTorch says where a GPU has no kernel for something, for which it has no class of exceptions.
NO_KERNEL = ("No available kernel", "No viable backend", "no kernel image")


class LeftOut(Exception):
    """Something cannot be measured on this machine; says why in a clause."""


@dataclass(frozen=True)
class Times:
    """Milliseconds of a way's runs, in their order, and of its first, which may compile."""

    runs: tuple[float, ...]
    first: float

    @property
    def median(self) -> float:
        return statistics.median(self.runs)

    def __str__(self) -> str:
        return f"median of {len(self.runs)}, {min(self.runs):.3g} to {max(self.runs):.3g} ms"


def device() -> str:
    """The device that is measured: "cuda" where PyTorch sees a GPU, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def in_turns(ways: Mapping[str, Callable[[], Work]], seconds: float) -> Iterator[tuple[str, Times | Exception]]:
    """Time several ways in turns, A B A B, so that a card that grows hot or slow hurts all alike.

    Args:
        ways: by name, functions that prepare a way and give the work to time. One that raises leaves the others as
            they are.
        seconds: that the runs of one way may take, beside two that are of no account; no fewer than `LEAST` are done.

    Yields:
        A name and its times, or what was raised: at once for what fails before it is timed, the others at the end.
    """
    works: dict[str, Work] = {}
    first: dict[str, float] = {}
    counts: dict[str, int] = {}
    for name, prepare in ways.items():
        try:
            work = prepare()
            first[name] = run_once(work)
            counts[name] = min(max(round(1000 * seconds / max(run_once(work), 1e-3)), LEAST), MOST)
            works[name] = work
        except Exception as error:
            yield name, error
            free()
    runs: dict[str, list[float]] = {name: [] for name in works}
    failed: dict[str, Exception] = {}
    for number in range(max(counts.values(), default=0)):
        for name, work in works.items():
            if number < counts.get(name, 0) and name not in failed:
                try:
                    runs[name].append(run_once(work))
                except Exception as error:
                    failed[name] = error
    for name in works:
        yield name, failed.get(name) or Times(tuple(runs[name]), first[name])


def run_once(work: Work) -> float:
    """Milliseconds of one run."""
    import torch

    if not torch.cuda.is_available():
        began_at = time.perf_counter()
        work()
        return 1000 * (time.perf_counter() - began_at)
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    began.record()
    work()
    ended.record()
    torch.cuda.synchronize()
    milliseconds: float = began.elapsed_time(ended)
    return milliseconds


def free() -> None:
    """Give back what PyTorch keeps on the GPU for later."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_gb() -> str:
    """The most that PyTorch has had on the GPU since the last call, in words; empty on the CPU."""
    import torch

    if not torch.cuda.is_available():
        return ""
    peak: float = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return f"PyTorch held {peak:.1f} GB"


def rows_of(
    ways: Mapping[str, Callable[[], Work]],
    seconds: float,
    what: str,
    shown: Callable[[Times], str],
    note: str | Callable[[str], str] = "",
) -> Iterator[Row]:
    """A row a way: its name after `what`, what `shown` makes of its times, and their spread.

    Args:
        ways: as of `in_turns`, as are `seconds`.
        what: that is timed.
        shown: the value of a row.
        note: what follows the spread, or a function that gives it for a way's name.
    """
    for name, times in in_turns(ways, seconds):
        title = f"{what}, {name}" if name else what
        if isinstance(times, Times):
            more = note if isinstance(note, str) else note(name)
            yield Row(title, MEASURED, shown(times), note="; ".join(filter(None, (str(times), more))))
        else:
            yield left_out(title, times)


def left_out(what: str, error: Exception) -> Row:
    """The row of what could not be measured: skipped where the machine lacks something for it, else failed."""
    import torch

    lacks = (LeftOut, ImportError, NotImplementedError, torch.OutOfMemoryError)
    status = SKIPPED if isinstance(error, lacks) or any(words in str(error) for words in NO_KERNEL) else FAILED
    return Row(what, status, note=str(error) if isinstance(error, LeftOut) else sentence(error))


def check_float8() -> None:
    """Raise `LeftOut` where PyTorch has no product of float8 for this GPU."""
    import torch

    if not hasattr(torch, "_scaled_mm"):
        raise LeftOut("this PyTorch has no product of float8")
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 9):
        found = "{}.{}".format(*torch.cuda.get_device_capability())
        raise LeftOut(f"float8 needs compute capability 8.9, and this GPU has {found}")
