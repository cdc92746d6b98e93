"""The settings of a build that TensorRT alone has, and which thus no machine without a GPU can try.

They stand here by themselves, typed by what the bindings of TensorRT 11.4 show. TensorRT-RTX has the same names, for
which its wheel serves to try the calls: its timing cache stays empty, and it takes no hardware compatibility, since its
engines run on all cards that it builds for as they are.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Protocol

log = logging.getLogger(__name__)


class TimingCache(Protocol):
    """`ITimingCache`: how long tactics took on this GPU."""

    def serialize(self) -> Any:
        """Its contents, as a buffer."""


class BuilderConfig(Protocol):
    """What is used of `IBuilderConfig`."""

    hardware_compatibility_level: Any

    def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache:
        """A cache of what an earlier build wrote, or an empty one of b""; one of another GPU or version is empty."""

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        """Have the build read it and add to it."""

    def get_timing_cache(self) -> TimingCache | None:
        """The cache, after the build with all that it measured."""


def make_portable(trt: Any, config: BuilderConfig) -> None:
    """Build an engine for all cards of the same system from Ampere on, instead of for the one that is here."""
    config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS


def read_timing_cache(config: BuilderConfig, path: Path) -> None:
    """Let a build take the timings of an earlier one from a file, if there is one that can be read."""
    try:
        contents = path.read_bytes()
    except OSError:
        contents = b""
    config.set_timing_cache(config.create_timing_cache(contents), False)


def write_timing_cache(config: BuilderConfig, path: Path) -> None:
    """Keep the timings of a build in a file, whole or not at all; without it the next build measures anew."""
    cache = config.get_timing_cache()
    if cache is None:
        return
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        draft.write_bytes(bytes(cache.serialize()))
        draft.replace(path)
    except OSError as error:
        log.warning("The timing cache cannot be kept (%s); the next build measures all tactics anew.", error)
        draft.unlink(missing_ok=True)
