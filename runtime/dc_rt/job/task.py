"""One video to run, and how, in plain values that cross to other processes and machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dc_rt.job.targets import Targets
from dc_rt.options import Options


@dataclass(frozen=True)
class Task:
    """One video to run.

    Attributes:
        video: its path.
        save_folder: where its results go.
        options: of its run.
        restart: throw away what an unfinished run did.
        skip_done: do nothing where its results are there already (`dc_rt.job.done`).
    """

    video: str
    save_folder: str
    options: Options = field(default_factory=Options)
    restart: bool = False
    skip_done: bool = False

    @property
    def targets(self) -> Targets:
        """Where its results go; looks at the folder, and at the video for its sound if that is to be copied."""
        return Targets.of(Path(self.video), Path(self.save_folder), self.options.outputs)

    def as_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return vars(self) | {"options": self.options.as_dict()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Task:
        """What `as_json` gave, after JSON."""
        return cls(**{**values, "options": Options.by_name(values["options"])})
