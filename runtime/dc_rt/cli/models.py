"""Which engines run a video: opened when they are needed, and said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dc_rt.cli.terminal import say
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

    def __init__(self, candidates: Candidates, backend: str, **opened_with: Any) -> None:
        """`opened_with` are further arguments of `DepthCrafter.load`."""
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
        from dc_rt.engine.discovery import Wanted, choose
        from dc_rt.media import output_size

        def size_at(max_res: int) -> tuple[int, int]:
            return output_size(plan.video.height, plan.video.width, max_res, source.dataset)

        follows = size_at if source.dataset == "open" else None
        wanted = Wanted(plan.height, plan.width, sampling.window_size, sampling.overlap, source.max_res, follows)
        choice = choose(self._candidates, wanted, self._backend, self._choice)
        if self._model is None or choice != self._choice:
            self._model = self._open(choice)
        return self._model

    def close(self) -> None:
        """Close the model that is open."""
        if self._model:
            self._model.close()
        self._model = None

    def _open(self, choice: Choice) -> DepthCrafter:
        from dc_rt.model import DepthCrafter

        self.close()
        first, self._choice = self._choice is None, choice
        try:
            model = DepthCrafter.load(choice.folder, self._backend, **self._opened_with)
        except UserError as error:
            if first:
                raise NothingRuns(error.sentence) from error
            raise
        engines = model.engines
        why_not = f"; not TensorRT, as {engines.why_not_tensorrt}" if engines.why_not_tensorrt else ""
        runs = f"{engines.backend} on {engines.device}"
        say(f"Model {engines.manifest.model.name} ({engines.manifest.precision}), {runs}{why_not}")
        say(f"Engines {choice.folder}: {choice.reason}")
        if first:
            for folder, sentence in self._candidates.skipped.items():
                say(f"  {folder} is left out: {sentence}")
        return model
