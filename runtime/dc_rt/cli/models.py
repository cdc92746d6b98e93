"""Which engines run a video: opened when they are needed, and said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dc_rt.cli.terminal import say
from dc_rt.engine.demonstration import what_it_demonstrates
from dc_rt.errors import UserError

if TYPE_CHECKING:
    from dc_rt.engine.discovery import Candidates, Choice
    from dc_rt.job import Plan
    from dc_rt.model import DepthCrafter
    from dc_rt.options import Sampling, Source


class NothingRuns(UserError):
    """The engines cannot be opened, so that no video can be run."""


class Models:
    """The model that runs a video: the one that is open while it can, else that of the newest set which can."""

    def __init__(self, candidates: Candidates, backend: str, cpu_offload: str, **opened_with: Any) -> None:
        """`opened_with` are further arguments of `DepthCrafter.load`."""
        self._cpu_offload = self._opened_for = cpu_offload
        self._candidates = candidates
        self._backend = backend
        self._opened_with = opened_with
        self._choice: Choice | None = None
        self._model: DepthCrafter | None = None

    def for_video(self, plan: Plan, sampling: Sampling, source: Source) -> DepthCrafter:
        """The model, opened and told of if it is another than the last video's.

        Raises:
            NothingRuns: it is the first one, and cannot be opened.
            UserError: no set that may be used can run the video, or another than the last video's cannot be opened.
        """
        from dc_rt.engine.discovery import choose
        from dc_rt.job.forecast import wanted_of

        wanted = wanted_of(plan, sampling, source)
        return self.opened(choose(self._candidates, wanted, self._backend, self._choice), self._cpu_offload)

    def opened(self, choice: Choice, cpu_offload: str) -> DepthCrafter:
        """The model of a set, opened and told of unless it is the last video's; raises as `for_video` does."""
        if self._model is None or (choice, cpu_offload) != (self._choice, self._opened_for):
            self._model = self._open(choice, cpu_offload)
        return self._model

    def close(self) -> None:
        """Close the model that is open."""
        if self._model:
            self._model.close()
        self._model = None

    def _open(self, choice: Choice, cpu_offload: str) -> DepthCrafter:
        from dc_rt.engine.discovery import BUNDLED
        from dc_rt.gpu import has_driver
        from dc_rt.model import DepthCrafter

        self.close()
        first, self._choice, self._opened_for = self._choice is None, choice, cpu_offload
        try:
            model = DepthCrafter.load(choice.folder, self._backend, cpu_offload=cpu_offload, **self._opened_with)
        except UserError as error:
            if first:
                raise NothingRuns(error.sentence) from error
            raise
        engines = model.engines
        why_not = f"; not TensorRT, as {engines.why_not_tensorrt}" if engines.why_not_tensorrt else ""
        which = "the bundled set" if choice.folder == BUNDLED else choice.folder
        runs = f"{engines.backend} on {engines.device}"
        say(f"Model {engines.manifest.model.name} ({engines.manifest.precision}) of {which}, {runs}{why_not}")
        if why_not and engines.tensorrt_fix and has_driver():
            say(f"  to run on the GPU: {engines.tensorrt_fix}")
        say(f"Engines {choice.folder}: {choice.reason}")
        if demonstration := what_it_demonstrates(engines.manifest):
            say(f"  {demonstration}")
        if first:
            for folder, sentence in self._candidates.skipped.items():
                say(f"  {folder} is left out: {sentence}")
        return model
