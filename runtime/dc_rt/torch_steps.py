"""What the reference in PyTorch can be sped up by, step by step: one table of names. PyTorch is not imported.

What each does to the networks is in `depthcrafter.fast`. Without any, the reference is the proof that all else is held
against; with some it is an honest baseline, and what runs on a GPU where no TensorRT can be installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dc_rt.errors import UserError, option

TORCH_STEPS: Mapping[str, str] = {
    "collapsed": "cross-attention, which has one key, as the two projections that it comes to",
    "channels_last": "channels innermost in memory, as tensor cores take convolutions",
    "compile": "`torch.compile` of all networks, which the first window waits for",
    "cuda-graph": "the UNet's kernels recorded once for each length of window, and replayed; on a GPU",
}
"""What each is, in a phrase, by name, in the order in which they are applied, however they are asked for."""


def split_names(text: str) -> tuple[str, ...]:
    """The names of "collapsed,compile", as they are typed; none of ""."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def check_torch_steps(names: Iterable[str], backend: str = "torch", cpu_offload: str = "none") -> tuple[str, ...]:
    """The same steps in the order of the table, each once.

    Raises:
        UserError: there is no such step, or the backend or the offload is one that has none.
    """
    asked = tuple(dict.fromkeys(names))
    for name in asked:
        if name not in TORCH_STEPS:
            raise UserError(f"There is no {option('torch_steps', name)}; choose of {', '.join(TORCH_STEPS)}.")
    if asked and backend != "torch":
        raise UserError(
            f"{option('torch_steps', ','.join(asked))} is of PyTorch, and the backend is {backend}; "
            f"use {option('backend', 'torch')}, or leave {option('torch_steps')} out."
        )
    if asked and cpu_offload != "none":
        raise UserError(
            f"{option('torch_steps', ','.join(asked))} needs the networks to stay where they are; "
            f"use {option('cpu_offload', 'none')}, or leave {option('torch_steps')} out."
        )
    return tuple(name for name in TORCH_STEPS if name in asked)


def in_words(names: Iterable[str]) -> str:
    """How records and run messages have them, after the backend or the device; "" for none."""
    listed = ", ".join(names)
    return f", steps {listed}" if listed else ""
