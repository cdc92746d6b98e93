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
        kernel: of `torch.nn.attention.SDPBackend`, the only one for the UNet; "" leaves the choice to PyTorch.
        needs_gpu: whether it runs on NVIDIA GPUs alone.
    """

    help: str
    processor: str
    package: str = ""
    kernel: str = ""
    needs_gpu: bool = False


# Those of diffusers' other models (`set_attention_backend`: flash, sage, flex) leave these networks as they are: their
# layers are of diffusers' older kind, which knows processors alone.
ATTENTIONS: dict[str, Attention] = {
    "sdpa": Attention("PyTorch's own kernels, one for all of it", "AttnProcessor2_0"),
    "flash": Attention("PyTorch's flash attention in the UNet", "AttnProcessor2_0", kernel="FLASH_ATTENTION"),
    "cudnn": Attention(
        "cuDNN's fused kernel in the UNet, on a GPU", "AttnProcessor2_0", kernel="CUDNN_ATTENTION", needs_gpu=True
    ),
    "xformers": Attention(
        "those of xformers, on a GPU; the original's way", "XFormersAttnProcessor", "xformers", needs_gpu=True
    ),
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
    way = ATTENTIONS[name]
    if way.package and not find_spec(way.package):
        return f"{way.package} is not installed"
    return f"{name} needs an NVIDIA GPU and a CUDA build of PyTorch" if way.needs_gpu and not _sees_a_gpu() else ""


def _sees_a_gpu() -> bool:
    try:
        return "+cpu" not in version("torch") and shutil.which("nvidia-smi") is not None
    except PackageNotFoundError:
        return False
