"""Whether the results of a run are there already: as `NAME.json` says, from the same video, engines and options."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dc_rt.errors import UserError
from dc_rt.job.fingerprint import differences, fingerprint_of_rest, readable_hash, stamp_of
from dc_rt.job.spool import SPOOL_SUFFIX, SpoolLock, fingerprint_of_state
from dc_rt.job.targets import LEASE_SUFFIX, Targets
from dc_rt.options import Outputs, Sampling

if TYPE_CHECKING:
    from dc_rt.engine.manifest import Manifest
    from dc_rt.job.plan import Plan


@dataclass(frozen=True)
class Done:
    """Results that are there: their paths, the record last; frames of each; and the fingerprint of their run."""

    files: tuple[Path, ...]
    num_frames: int
    fingerprint: dict[str, Any]


def find_done(targets: Targets, plan: Plan, manifest: Manifest, sampling: Sampling, outputs: Outputs) -> Done | None:
    """The results of an earlier run, if they are what a run would give now; None where a run is to be done.

    The video is read where its size or time is another than it was, so that a copy of it is known too. Which backend
    ran the engines does not matter: they are the same.

    Raises:
        UserError: the video cannot be read.
    """
    record = targets.read_record()
    if record is None or not isinstance(found := record.get("fingerprint"), dict):
        return None
    found = dict(found)
    stamp, backend = found.pop("stamp", ""), found.pop("backend", None)
    rest = fingerprint_of_rest(manifest, plan, sampling)
    video = found.pop("video", None)
    if differences(found, rest) != {} or not _is_what_was_asked(record["options"], outputs):
        return None
    if (stamp != stamp_of(plan.video) or not stamp) and video != readable_hash(plan.video):
        return None
    files = targets.files_of(record)
    if files is None:
        return None
    return Done(files, record["result"].get("num_frames", 0), {"video": video, "backend": backend, **rest})


class Leftovers:
    """Which results have a lease or a spool beside them, in folders as they were when they were first looked into.

    Those that are done and have none need no lease to be skipped, and their folder, which may hold very many, is not
    listed for each of them.
    """

    def __init__(self) -> None:
        self._names: dict[Path, frozenset[str]] = {}

    def are_beside(self, save_folder: Path, name: str) -> bool:
        """Whether results called so have any; True where the folder cannot be looked into."""
        if save_folder not in self._names:
            try:
                hidden = [entry for entry in os.listdir(save_folder) if entry.startswith(".")]  # noqa: PTH208
            except FileNotFoundError:
                hidden = []
            except OSError:
                return True
            self._names[save_folder] = frozenset(
                entry[1 : entry.rindex(suffix)]
                for entry in hidden
                for suffix in (LEASE_SUFFIX, SPOOL_SUFFIX)
                if suffix in entry
            )
        return name in self._names[save_folder]


def remove_spool_of(targets: Targets, done: Done) -> None:
    """Remove what a run left of its spool that was ended after all results were in place, amid its removal."""
    if not targets.spool.is_dir():
        return
    # One that another run holds, or that the disk does not let go of, is left.
    with suppress(UserError, OSError):
        found = fingerprint_of_state(targets.spool)
        if found is None or differences(found, done.fingerprint) == {}:
            SpoolLock(targets.spool).delete()


def _is_what_was_asked(options: dict[str, Any], outputs: Outputs) -> bool:
    """Whether all that is asked for was written, in the same manner."""
    written = {*options.get("outputs", ()), options.get("keep")}
    wanted = {*outputs.names} | ({outputs.keep} - {"none"})
    return wanted <= written and all(options.get(name) == value for name, value in outputs.manner.items())
