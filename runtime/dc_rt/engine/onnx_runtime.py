"""The ONNX Runtime backend, on whichever execution provider: see `dc_rt.engine.providers`."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import onnxruntime as ort

from dc_rt.engine import Array, Interrupted, OpenEngine
from dc_rt.engine.manifest import Manifest
from dc_rt.engine.memory import NOT_STREAMED
from dc_rt.engine.openvino import OpenVinoEngine
from dc_rt.engine.providers import CUDA, OPENVINO, Provider, choose_provider, first_line
from dc_rt.engine.signatures import check_signature
from dc_rt.errors import UserError, option
from dc_rt.installation import gpu_command

log = logging.getLogger(__name__)


class OnnxEngine:
    """An ONNX graph in an inference session."""

    def __init__(
        self, path: Path, provider: Provider | None = None, settings: ort.SessionOptions | None = None
    ) -> None:
        """Open `path` on a provider, the CPU unless given; raises `UserError` where ONNX Runtime cannot.

        Args:
            path: the graph.
            provider: what runs it.
            settings: of the session, those of `session_settings` unless given.
        """
        provider = provider or Provider()
        settings = settings or session_settings()
        settings.log_severity_level = 1 if log.isEnabledFor(logging.DEBUG) else 3
        try:
            self._session = provider.open(str(path), settings)
        except Exception as error:  # ONNX Runtime has an exception class a status, without a common base
            fix = (
                f"check the options of {option('provider')}, update onnxruntime"
                if provider.options
                else "update onnxruntime"
            )
            raise UserError(
                f"ONNX Runtime {ort.__version__} cannot open {path} ({first_line(error)}); "
                f"{fix}, or export the engine set again (dc-export onnx)."
            ) from error
        if provider.name not in self._session.get_providers():
            fix = (
                f"install it again with what it needs (`{gpu_command()}`)"
                if provider.name == CUDA
                else f"install again what {option('provider')} needs"
            )
            raise UserError(
                f"ONNX Runtime {ort.__version__} cannot load {provider.name} for {path}; {fix}, or use "
                f"{option('provider', 'cpu')}."
            )
        self._path = path
        self._device = provider.memory
        self._run_options = ort.RunOptions()
        self._outputs = [output.name for output in self._session.get_outputs()]

    def shapes(self) -> tuple[dict[str, list[int | str | None]], dict[str, list[int | str | None]]]:
        """Of the inputs and of the outputs, by their names; no number for an axis that varies."""
        inputs, outputs = (
            {value.name: list(value.shape) for value in values}
            for values in (self._session.get_inputs(), self._session.get_outputs())
        )
        return inputs, outputs

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        binding = self._session.io_binding()
        # On the CPU a value is the array itself: both must live until the run is over.
        arrays = {name: np.asarray(array, order="C") for name, array in inputs.items()}
        values = {name: ort.OrtValue.ortvalue_from_numpy(array, self._device, 0) for name, array in arrays.items()}
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            binding.bind_output(name, self._device)
        try:
            self._session.run_with_iobinding(binding, self._run_options)
        except Exception as error:  # as above
            if self._run_options.terminate:
                raise Interrupted(f"{self._path.name} was interrupted") from error
            if not re.search(r"out of memory|allocat", str(error), re.IGNORECASE):
                raise
            raise UserError(
                f"There is not enough memory to run {self._path.name} ({first_line(error)}); "
                f"try a smaller {option('window_size')} or {option('max_res')}, or {option('cpu_offload', 'model')}."
            ) from error
        return dict(zip(self._outputs, binding.copy_outputs_to_cpu(), strict=True))

    def interrupt(self) -> None:
        """End the run under way, and have later ones raise `Interrupted`.

        A node that has begun is computed to its end: on a CPU, the attention of a large window can take a minute.
        """
        self._run_options.terminate = True

    def rearm(self) -> None:
        """Let the graph run again."""
        self._run_options.terminate = False


def session_settings() -> ort.SessionOptions:
    """ONNX Runtime's defaults, but for the one that pays of those that `bench.speed.cpu_settings` compares."""
    settings = ort.SessionOptions()
    # Threads that have nothing to do sleep, and leave the processor to reading, spooling and writing: on 2 cores
    # `dc-rt infer` took 1.21 times less processor time so, and was 1.07 times (1.05 to 1.08) as fast, to the same bits;
    # on busy ones 1.30 times (1.22 to 1.69).
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return settings


def open_engines(
    folder: Path, manifest: Manifest, cpu_offload: str, provider: str | None = None
) -> tuple[OpenEngine, str]:
    """The graphs of `folder`, ready to be opened on a provider: see `dc_rt.engine.providers.choose_provider`.

    OpenVINO's own package is one of them: it reads the same graphs.
    """
    if cpu_offload == "sequential":
        raise UserError(NOT_STREAMED)
    chosen = choose_provider(provider)
    log.debug("ONNX Runtime %s, %s %s", ort.__version__, chosen.name, dict(chosen.options))

    def open_engine(graph: str) -> OnnxEngine | OpenVinoEngine:
        path = folder / manifest.file(graph)
        engine = OpenVinoEngine(path, chosen.options) if chosen.name == OPENVINO else OnnxEngine(path, chosen)
        check_signature(path, graph, manifest.model, *engine.shapes())
        return engine

    return open_engine, chosen.device
