"""What tells one checkpoint from another, whatever its files and the graphs that are made from it."""

from __future__ import annotations

import hashlib
from typing import TypeVar

import torch

M = TypeVar("M", bound=torch.nn.Module)


class WeightsHash:
    """A SHA-256 of the weights of a checkpoint's networks, each as float16.

    In float16, since the hub has the base in both precisions, of which an export reads the one that it is nearest to,
    and one is the other's rounding. Without the weights' names, which differ between versions of the libraries: what
    counts is which tensors a network has, by their shapes and contents. It takes seconds for the real checkpoint.
    """

    def __init__(self) -> None:
        self._networks: dict[str, str] = {}

    def add(self, name: str, network: M) -> M:
        """Take in a network as it was loaded, before anything is done to it; gives it back."""
        digests = sorted(_digest(tensor) for tensor in network.state_dict().values() if tensor.is_floating_point())
        self._networks[name] = hashlib.sha256(b"".join(digests)).hexdigest()
        return network

    def hexdigest(self) -> str:
        """Of all networks, in whatever order they were taken in."""
        return hashlib.sha256(repr(sorted(self._networks.items())).encode()).hexdigest()


def _digest(tensor: torch.Tensor) -> bytes:
    half = tensor.detach().to("cpu", torch.float16).contiguous()
    digest = hashlib.sha256(f"{tuple(half.shape)}".encode())
    digest.update(half.numpy())
    return digest.digest()
