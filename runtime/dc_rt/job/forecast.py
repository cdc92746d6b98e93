"""What a run will need, and which run fits the memory that there is: known before anything is opened or hashed.

The memory on the GPU is what the engines' manifest says (`dc_rt.engine.memory`); the time is that of the set's last run
on this machine (`dc_rt.job.pace`).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dc_rt.engine.discovery import Candidates, Choice, Wanted, choose, obstacle, runs_as
from dc_rt.engine.manifest import LIBRARY_NAMES, Manifest
from dc_rt.engine.memory import NOT_STREAMED, Need, gpu_need, offloads_of
from dc_rt.errors import UserError, option
from dc_rt.gpu import Card
from dc_rt.job.pace import Pace, recall, work_of
from dc_rt.job.plan import Plan, plan_video
from dc_rt.media import output_size
from dc_rt.options import SIZE_MULTIPLE, Outputs, Sampling, Source

GB = 1e9


@dataclass(frozen=True)
class Setup:
    """How a video is to be run: with which set, as what of it (see `discovery.runs_as`), which offload and size."""

    choice: Choice
    manifest: Manifest
    running: Manifest
    cpu_offload: str
    source: Source
    plan: Plan
    need: Need | None
    backend: str

    @property
    def runs_on(self) -> str:
        """In words, what of the set is used."""
        return LIBRARY_NAMES.get(self.running.flavour, "ONNX Runtime")


@dataclass(frozen=True)
class Forecast:
    """What a run will need against what there is.

    Attributes:
        setup: how it is run.
        num_windows: of the video; if it is one shot, where its shots are found when it runs.
        evaluations: of the denoiser in each window.
        card: the GPU; None where there is none.
        disk_needed: bytes of the spool and of the results, at most.
        disk_free: bytes.
        pace: of the set's last run here; None where there was none.
        seconds: that the run will take at that pace.
        problem: why it cannot work, in a sentence with the fix (options marked); empty where it can.
    """

    setup: Setup
    num_windows: int
    evaluations: int
    card: Card | None
    disk_needed: int
    disk_free: int
    pace: Pace | None
    seconds: float | None
    problem: str


def wanted_of(plan: Plan, sampling: Sampling, source: Source) -> Wanted:
    """What a set of engines has to run."""

    def size_at(max_res: int) -> tuple[int, int]:
        return output_size(plan.video.height, plan.video.width, max_res, source.dataset)

    follows = size_at if source.dataset == "open" else None
    return Wanted(plan.height, plan.width, sampling.window_size, sampling.overlap, source.max_res, follows)


def set_up(
    candidates: Candidates, plan: Plan, sampling: Sampling, source: Source, backend: str, cpu_offload: str
) -> Setup:
    """The run as it is asked for.

    Raises:
        UserError: no set that may be used can run the video.
    """
    choice = choose(candidates, wanted_of(plan, sampling, source), backend)
    manifest = candidates.sets[choice.folder]
    running = runs_as(choice.folder, manifest, backend)
    need = gpu_need(running, plan.height, plan.width, sampling.window_size, cpu_offload)
    return Setup(choice, manifest, running, cpu_offload, source, plan, need, backend)


def fit(
    candidates: Candidates,
    plan: Plan,
    sampling: Sampling,
    source: Source,
    backend: str,
    cpu_offload: str,
    card: Card | None,
) -> Setup:
    """The best run that the GPU's free memory has room for: the size as asked for if it can be, then the fastest way.

    Without a GPU there is nothing to fit: the run is as it is asked for.

    Args:
        candidates, plan, sampling, source, backend: of the run that is asked for.
        cpu_offload: the least that is to be saved: "none" unless one is insisted on.
        card: the GPU.

    Raises:
        UserError: nothing fits; with what would.
    """
    if card is None:
        return set_up(candidates, plan, sampling, source, backend, cpu_offload)
    least: Setup | None = None
    for setup in _setups(candidates, plan, sampling, source, backend, cpu_offload):
        assert setup.need is not None
        if setup.need.total <= card.free_bytes:
            return setup
        if least is None or least.need is None or setup.need.total < least.need.total:
            least = setup
    if least is None or least.need is None:  # none of the sets has engines for this card
        return set_up(candidates, plan, sampling, source, backend, cpu_offload)
    raise UserError(
        f"Nothing fits into the {_gb(card.free_bytes)} that are free on {card.name}: the least is "
        f"{_gb(least.need.total)}, for {least.plan.width}x{least.plan.height} with "
        f"{option('cpu_offload', least.cpu_offload)}; {_engines_that_need_less(least.running)}, or close what else "
        "uses the GPU (nvidia-smi tells)."
    )


def _setups(
    candidates: Candidates, plan: Plan, sampling: Sampling, source: Source, backend: str, cpu_offload: str
) -> Iterator[Setup]:
    """All runs on engines of TensorRT, the best first."""
    for sized, at in _sizes(plan, source):
        wanted = wanted_of(at, sampling, sized)
        able = {}
        for folder, manifest in candidates.sets.items():
            if not obstacle(folder, manifest, wanted, backend):
                able[folder] = runs_as(folder, manifest, backend)
        for offload in ("none", "model", "sequential"):
            for folder, running in able.items():
                need = gpu_need(running, at.height, at.width, sampling.window_size, offload)
                if need is None or offload not in offloads_of(running) or _saves_less(offload, cpu_offload):
                    continue
                choice = Choice(folder, "what fits into the GPU's memory")
                yield Setup(choice, candidates.sets[folder], running, offload, sized, at, need, backend)


def _sizes(plan: Plan, source: Source) -> Iterator[tuple[Source, Plan]]:
    """The options and the plan at each size that the video can be run at, from the one that is asked for downwards."""
    yield source, plan
    if source.dataset != "open":
        return
    seen = {(plan.height, plan.width)}
    for max_res in range(source.max_res - source.max_res % SIZE_MULTIPLE, SIZE_MULTIPLE - 1, -SIZE_MULTIPLE):
        smaller = replace(source, max_res=max_res)
        at = plan_video(plan.video, smaller)
        if (at.height, at.width) not in seen:
            seen.add((at.height, at.width))
            yield smaller, at


def _saves_less(offload: str, asked: str) -> bool:
    order = ("none", "model", "sequential")
    return order.index(offload) < order.index(asked)


def foretell(setup: Setup, sampling: Sampling, outputs: Outputs, save_folder: Path, card: Card | None) -> Forecast:
    """What a run will need; nothing is opened, hashed or written."""
    plan = setup.plan
    pace = recall(setup.running, setup.cpu_offload)
    disk_needed, disk_free = disk_need(plan, outputs), _free_on_disk(save_folder)
    num_windows = sum(1 for _ in plan.windows(sampling))
    seconds = pace.seconds_per_pixel * work_of(plan, sampling) if pace else None
    problem = _problem(setup, sampling, save_folder, card, disk_needed, disk_free)
    return Forecast(setup, num_windows, sum(sampling.evaluations), card, disk_needed, disk_free, pace, seconds, problem)


def disk_need(plan: Plan, outputs: Outputs, spooled_frames: int = 0) -> int:
    """Bytes that a run will write at most: the depth that is spooled, and the results."""
    spooled = 4 * plan.height * plan.width * (plan.num_frames - spooled_frames)
    height, width = plan.result_size(outputs)
    written = height * width * plan.num_frames * sum(row.bytes_per_pixel for row in plan.rows(outputs))
    return int(spooled + written)


def check_space(save_folder: Path, plan: Plan, needed: int) -> None:
    """Raise `UserError` where a disk, whose folder is there, is sure to run full of so many bytes."""
    free = shutil.disk_usage(save_folder).free
    if needed > free:
        raise UserError(disk_too_small(plan, save_folder, needed, free))


def _problem(
    setup: Setup, sampling: Sampling, save_folder: Path, card: Card | None, disk_needed: int, disk_free: int
) -> str:
    offloads = offloads_of(setup.running)
    if setup.need is None and setup.cpu_offload == "sequential" and setup.backend != "torch":
        return NOT_STREAMED
    if setup.need and setup.cpu_offload not in offloads:
        return (
            f"The engines in {setup.choice.folder} were not built for {option('cpu_offload', setup.cpu_offload)}; make "
            f"them with `make engines STREAMING=1`, or use {option('cpu_offload', 'model')}."
        )
    if setup.need and card and setup.need.total > card.free_bytes:
        return (
            f"The run needs {_gb(setup.need.total)} on the GPU, and {_gb(card.free_bytes)} are free on {card.name}; "
            f"{_what_fits(setup, sampling, card)}."
        )
    if disk_needed > disk_free:
        return disk_too_small(setup.plan, save_folder, disk_needed, disk_free)
    return ""


def _what_fits(setup: Setup, sampling: Sampling, card: Card) -> str:
    """The next thing to try that helps: with this set, from the least loss on."""
    alone = Candidates({setup.choice.folder: setup.manifest}, "")
    for other in _setups(alone, setup.plan, sampling, setup.source, "auto", setup.cpu_offload):
        if other.need and other.need.total <= card.free_bytes:
            changes = []
            if other.cpu_offload != setup.cpu_offload:
                changes.append(option("cpu_offload", other.cpu_offload))
            if other.source != setup.source:
                changes.append(option("max_res", other.source.max_res))
            return f"try {' '.join(changes)}, which needs {_gb(other.need.total)}, or let {option('fit', True)} choose"
    return f"{_engines_that_need_less(setup.running)}, or close what else uses the GPU (nvidia-smi tells)"


def _engines_that_need_less(running: Manifest) -> str:
    switches = [] if running.low_memory else ["LOW_MEMORY=1"]
    if "sequential" not in offloads_of(running):
        switches.append("STREAMING=1")
    if not switches:
        return "make engines of a profile of fewer frames or pixels"
    return f"make engines that need less with `make engines {' '.join(switches)}`"


def disk_too_small(plan: Plan, save_folder: Path, needed: int, free: int) -> str:
    """The sentence for a disk that is sure to run full."""
    return (
        f"{plan.video.path} needs up to {size_in_words(needed)} in {save_folder}, where {size_in_words(free)} are "
        f"free; free some, or give another {option('save_folder')}."
    )


def size_in_words(num_bytes: float) -> str:
    """ "1.2 GB", or in megabytes where it is less than one."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def _free_on_disk(folder: Path) -> int:
    """Of the folder, or of the one that it will be made in."""
    existing = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(existing).free


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / GB:.1f} GB"
