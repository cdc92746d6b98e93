"""Execution providers of ONNX Runtime: which there are here, and the one that is asked for by name and options.

A provider is a name and its options, never a class of ours. The names come from ONNX Runtime, of what it was compiled
with and of what installed plugin packages add (modules called onnxruntime_ep_*): a new one needs nothing here. One is
no provider of ONNX Runtime's: OpenVINO, where its own package is installed (see `dc_rt.engine.openvino`).
"""

from __future__ import annotations

import functools
import json
import logging
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnxruntime as ort

from dc_rt.errors import UserError, option
from dc_rt.installation import install_command

log = logging.getLogger(__name__)

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
PLUGINS = "onnxruntime_ep_"
OPENVINO = "OpenVINO"

FULL_PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}
"""Of OpenVINO, which else computes float32 graphs in bfloat16 where the processor has it: decoded depth is then 4e-4
off on average and 1.3e-2 at most, where in float32 it is 1e-6 and 2e-5."""

# What is called otherwise than ONNX Runtime calls it.
_FRIENDLY = {"Dml": "DirectML"}
_DEVICES = {CPU: "the CPU", CUDA: "the GPU (CUDA)", OPENVINO: "the CPU (OpenVINO)"}
# What holds unless it is given. On other devices than the CPU OpenVINO's plugin chooses the precision.
_DEFAULTS = {"OpenVINOExecutionProvider": {"load_config": json.dumps({"CPU": FULL_PRECISION})}}
# It has none of our operators: it would leave all of the work to the CPU, and say nothing.
_CANNOT_RUN = frozenset({"AzureExecutionProvider"})


@dataclass(frozen=True)
class Provider:
    """An execution provider and its options, all of them text."""

    name: str = CPU
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def device(self) -> str:
        """In words, where it runs."""
        return _DEVICES.get(self.name, _friendly(self.name))

    @property
    def memory(self) -> str:
        """Where inputs are put and outputs made: "cuda" for the GPU that CUDA takes by itself, else "cpu"."""
        return "cuda" if self.name == CUDA and "device_id" not in self.options else "cpu"

    def open(self, path: str, settings: ort.SessionOptions) -> ort.InferenceSession:
        """A session for the graph in `path`, in which the CPU runs what this provider cannot."""
        options = {**_DEFAULTS.get(self.name, {}), **self.options}
        if devices := _plugin_devices(self.name):
            # By name alone ONNX Runtime passes plugins over. Most take one device.
            settings.add_provider_for_devices(devices[:1], options)
            return ort.InferenceSession(path, settings)
        providers: list[Any] = [(self.name, options)]
        if self.name != CPU:
            providers.append(CPU)
        # Without this a provider that cannot be loaded is replaced by another.
        return ort.InferenceSession(path, settings, providers=providers, enable_fallback=0)


def choose_provider(asked: str | None) -> Provider:
    """The provider asked for as `NAME` or `NAME:key=value,...`; without one CUDA where it works, else the CPU.

    Raises:
        UserError: there is no such provider here, or the text is of another form.
    """
    if asked is None:
        return Provider(CUDA) if CUDA in ort.get_available_providers() and cuda_works() else Provider()
    name, colon, settings = asked.partition(":")
    pairs = [setting.partition("=") for setting in settings.split(",")] if colon else []
    if not all(key and equals for key, equals, _ in pairs):
        form = option("provider", f"{name}:key=value,key=value")
        raise UserError(f"The options of {option('provider', asked)} are not of the form {form}; write them so.")
    known = available_providers()
    for found in known.values():
        if name.casefold() in (found.casefold(), _friendly(found).casefold()):
            return Provider(found, {key: value for key, _, value in pairs})
    if name.casefold() == OPENVINO.casefold():
        raise UserError(
            f"OpenVINO is not installed; install it with `{install_command('openvino')}`, or use "
            f"{option('provider', 'cpu')}."
        )
    raise UserError(f"There is no {option('provider', name)} here; choose one of {', '.join(known)}.")


@functools.cache
def available_providers() -> dict[str, str]:
    """Full names of the providers that work here, by the names that users give them."""
    for module in pkgutil.iter_modules():
        if module.name.startswith(PLUGINS):
            _register(module.name)
    # Compiled in is what ONNX Runtime was made for, whatever the machine has; plugins have the devices that they found.
    names = dict.fromkeys((*ort.get_available_providers(), *(device.ep_name for device in ort.get_ep_devices())))
    usable = [name for name in names if name not in _CANNOT_RUN and (name != CUDA or cuda_works())]
    if find_spec("openvino"):
        # In the place of the plugin of that name: it runs on more processors, and leaves no node to another provider.
        usable.append(OPENVINO)
    return {_friendly(name).lower(): name for name in usable}


@functools.cache
def cuda_works() -> bool:
    """Whether CUDA runs here, which ONNX Runtime was compiled for; a warning in the log says why not."""
    ort.preload_dlls()  # CUDA's libraries lie in packages of their own, where the system does not look
    try:
        ort.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32), "cuda", 0)
    except Exception as error:  # ONNX Runtime has an exception class a status, without a common base
        log.warning("ONNX Runtime runs on the CPU, as CUDA does not work here: %s", first_line(error))
        return False
    return True


def first_line(error: Exception) -> str:
    """What an error of ONNX Runtime says, without where in its source."""
    return str(error).strip().split("\n", 1)[0]


def _register(module: str) -> None:
    """Have ONNX Runtime load a plugin, unless the program that we run in has done so."""
    try:
        plugin = import_module(module)
        if not all(_plugin_devices(name) for name in plugin.get_ep_names()):
            ort.register_execution_provider_library(module, plugin.get_library_path())
    except Exception as error:  # another package's code, which may raise anything
        log.warning("The execution provider of the package %s cannot be loaded: %s", module, first_line(error))


def _plugin_devices(name: str) -> list[ort.OrtEpDevice]:
    return [
        device for device in ort.get_ep_devices() if device.ep_name == name and "library_path" in device.ep_metadata
    ]


def _friendly(name: str) -> str:
    short = name.replace("ExecutionProvider", "")
    return _FRIENDLY.get(short, short)
