"""Which engines run a video: opened when they are needed, kept for the next video, and told of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dc_rt.attention import check_attention
from dc_rt.engine import backend_with, check_offload
from dc_rt.engine.demonstration import what_it_demonstrates
from dc_rt.engine.discovery import BUNDLED, Choice, choose, find_candidates
from dc_rt.errors import UserError, option
from dc_rt.gpu import find_card, has_driver
from dc_rt.torch_steps import check_torch_steps

if TYPE_CHECKING:
    from dc_rt.engine.manifest import Manifest
    from dc_rt.job.forecast import Setup
    from dc_rt.job.plan import Plan
    from dc_rt.model import DepthCrafter
    from dc_rt.options import Sampling, Source

Tell = Callable[[tuple[str, ...]], None]
"""Is told in lines, options marked, which model was opened and why."""


class NothingRuns(UserError):
    """The engines cannot be opened, so that no video can be run."""


@dataclass(frozen=True)
class ModelOptions:
    """Which model runs videos, and as what, by plain values: as `DepthCrafter.load` takes them.

    `engines` is the folder of a set; where it is None, it is found (`dc_rt.engine.discovery`). With `fit` the set, the
    offload and the size are those that the GPU's free memory has room for.
    """

    engines: str | None = None
    backend: str = "auto"
    cpu_offload: str = "none"
    provider: str | None = None
    attention: str | None = None
    torch_steps: tuple[str, ...] = ()
    fit: bool = False

    def check(self) -> None:
        """Raise `UserError` for values that there are none of, or that do not go together."""
        backend = backend_with(self.backend, self.provider)
        check_offload(self.cpu_offload)
        if self.attention is not None:
            check_attention(self.attention, backend)
        check_torch_steps(self.torch_steps, backend, self.cpu_offload)

    @property
    def opened_with(self) -> dict[str, Any]:
        """Further arguments of `DepthCrafter.load`."""
        return {name: value for name, value in asdict(self).items() if name in ("provider", "attention", "torch_steps")}


@dataclass(frozen=True)
class Prepared:
    """A video that can be run: the set and the offload, the plan, and what is taken of the video.

    `note` says what `ModelOptions.fit` has chosen, options marked; empty where it was not asked for.
    """

    choice: Choice
    manifest: Manifest
    cpu_offload: str
    plan: Plan
    source: Source
    note: str = ""


class Models:
    """The model that runs a video: the one that is open while it can, else that of the newest set which can."""

    def __init__(self, options: ModelOptions, tell: Tell) -> None:
        """Look for engine sets; nothing is opened. Raises `UserError` where the named one cannot be read."""
        self._options = options
        self._tell = tell
        self._candidates = find_candidates(Path(options.engines) if options.engines else None)
        self._opened: tuple[Choice, str] | None = None
        self._model: DepthCrafter | None = None

    def prepare(self, plan: Plan, sampling: Sampling, source: Source) -> Prepared:
        """Choose the set for a video, and its size where that is to fit; nothing is opened.

        Raises:
            UserError: no set that may be used can run the video.
        """
        from dc_rt.job.forecast import fit, wanted_of  # jobs import this module

        asked = self._options
        if asked.fit:
            card = find_card()
            setup = fit(self._candidates, plan, sampling, source, asked.backend, asked.cpu_offload, card)
            return Prepared(
                setup.choice, setup.manifest, setup.cpu_offload, setup.plan, setup.source, fitted(setup, source)
            )
        choice = choose(
            self._candidates, wanted_of(plan, sampling, source), asked.backend, self._opened and self._opened[0]
        )
        return Prepared(choice, self._candidates.sets[choice.folder], asked.cpu_offload, plan, source)

    def open(self, prepared: Prepared) -> DepthCrafter:
        """The model of the set, opened and told of unless it is the last video's.

        Raises:
            NothingRuns: it is the first one, and cannot be opened.
            UserError: another than the last video's cannot be opened.
        """
        wanted = (prepared.choice, prepared.cpu_offload)
        if self._model is None or wanted != self._opened:
            self.close()
            is_first, self._opened = self._opened is None, wanted
            try:
                self._model = self._load(*wanted)
            except UserError as error:
                if is_first:
                    raise NothingRuns(error.sentence) from error
                raise
            self._tell(tuple(self._described(self._model, prepared.choice, is_first)))
        return self._model

    def close(self) -> None:
        """Close the model that is open."""
        if self._model:
            self._model.close()
        self._model = None

    def remember(self, prepared: Prepared, plan: Plan, sampling: Sampling, seconds: float) -> None:
        """Keep how long the run of a video took from its beginning to its end, for the next forecast."""
        from dc_rt.job.pace import remember

        remember(prepared.manifest, prepared.cpu_offload, plan, sampling, seconds)

    def _load(self, choice: Choice, cpu_offload: str) -> DepthCrafter:
        from dc_rt.model import DepthCrafter

        options = self._options
        return DepthCrafter.load(choice.folder, options.backend, cpu_offload=cpu_offload, **options.opened_with)

    def _described(self, model: DepthCrafter, choice: Choice, is_first: bool) -> Iterator[str]:
        engines = model.engines
        why_not = f"; not TensorRT, as {engines.why_not_tensorrt}" if engines.why_not_tensorrt else ""
        which = "the bundled set" if choice.folder == BUNDLED else choice.folder
        runs = f"{engines.backend} on {engines.device}"
        yield f"Model {engines.manifest.model.name} ({engines.manifest.precision}) of {which}, {runs}{why_not}"
        if why_not and engines.tensorrt_fix and has_driver():
            yield f"  to run on the GPU: {engines.tensorrt_fix}"
        yield f"Engines {choice.folder}: {choice.reason}"
        if demonstration := what_it_demonstrates(engines.manifest):
            yield f"  {demonstration}"
        if is_first:
            for folder, sentence in self._candidates.skipped.items():
                yield f"  {folder} is left out: {sentence}"


def fitted(setup: Setup, asked: Source) -> str:
    """What `fit` has chosen for a video, in a line; options marked."""
    from dc_rt.job.forecast import size_in_words

    if setup.need is None:
        return f"{option('fit', True)} has nothing to choose: no engines of TensorRT run here"
    plan = setup.plan
    size = "" if setup.source == asked else f", {option('max_res', setup.source.max_res)}"
    return (
        f"{option('fit', True)} takes {setup.choice.folder}, {option('cpu_offload', setup.cpu_offload)}{size}: "
        f"{plan.width}x{plan.height} in {size_in_words(setup.need.total)}"
    )
