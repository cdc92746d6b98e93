"""What steps need beside our own packages, and which of it is missing here."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

REFERENCE = ("torch", "diffusers", "transformers")
"""The modules that the networks in PyTorch need."""
EXPORTING = (*REFERENCE, "onnx", "onnxscript")


def lacking(modules: Sequence[str]) -> str:
    """Which of the modules are not installed, in words; empty where all are."""
    missing = [module for module in modules if not find_spec(module)]
    return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed" if missing else ""
