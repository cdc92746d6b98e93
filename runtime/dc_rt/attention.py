"""How the reference computes attention: one table, for all that names a way. PyTorch is not imported."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from dc_rt.errors import UserError, option


@dataclass(frozen=True)
class Attention:
    """A way to compute attention.

    Attributes:
        help: what it is, in a phrase.
        processor: the class of `diffusers.models.attention_processor` that computes it.
        package: what it needs beside PyTorch and a GPU, by the name of its module and of our extra; "" for nothing.
    """

    help: str
    processor: str
    package: str = ""


# Those of diffusers' other models (`set_attention_backend`: flash, sage, flex) leave these networks as they are: their
# layers are of diffusers' older kind, which knows processors alone.
ATTENTIONS: dict[str, Attention] = {
    "sdpa": Attention("PyTorch's own kernels, one for all of it", "AttnProcessor2_0"),
    "xformers": Attention("those of xformers, on a GPU; the original's way", "XFormersAttnProcessor", "xformers"),
    "math": Attention("products and softmax written out, to compare with", "AttnProcessor"),
}
"""By name, the default first."""

DEFAULT_ATTENTION = next(iter(ATTENTIONS))


def find_attention(name: str) -> Attention:
    """That of the table; raises `UserError` where there is no such one."""
    if name not in ATTENTIONS:
        raise UserError(f"There is no {option('attention', name)}; choose one of {', '.join(ATTENTIONS)}.")
    return ATTENTIONS[name]


def check_attention(name: str, backend: str) -> None:
    """Raise `UserError` unless there is such a way, and `backend` is the one that has a choice of them."""
    find_attention(name)
    if backend != "torch":
        raise UserError(
            f"{option('attention', name)} is of PyTorch, and the backend is {backend}; "
            f"use {option('backend', 'torch')}, or leave {option('attention')} out."
        )


def lacking(name: str) -> str:
    """What this machine lacks for it beside PyTorch, as far as can be told without running anything; "" for nothing."""
    package = ATTENTIONS[name].package
    if not package:
        return ""
    if not find_spec(package):
        return f"{package} is not installed"
    return "" if _sees_a_gpu() else f"{package} needs an NVIDIA GPU and a CUDA build of PyTorch"


def _sees_a_gpu() -> bool:
    try:
        return "+cpu" not in version("torch") and shutil.which("nvidia-smi") is not None
    except PackageNotFoundError:
        return False
