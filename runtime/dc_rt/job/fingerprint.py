"""All that decides the depth of a video: what a run must share with the one that it resumes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dc_rt.attention import DEFAULT_ATTENTION
from dc_rt.errors import UserError
from dc_rt.media import VideoInfo
from dc_rt.media.read_exr import View
from dc_rt.options import Sampling
from dc_rt.torch_steps import in_words

if TYPE_CHECKING:
    from dc_rt.engine import EngineSet
    from dc_rt.engine.manifest import Manifest
    from dc_rt.job.plan import Plan

Fingerprint = Mapping[str, Any]
"""Plain values by name."""

_ONE_SHOT = "none"
_CALLED_BEFORE = {"num_denoising_steps": "steps"}


def fingerprint(engines: EngineSet, plan: Plan, sampling: Sampling) -> dict[str, Any]:
    """That of a run. Raises `UserError` where the video cannot be read any more."""
    video = readable_hash(plan.video)
    return {"video": video, "backend": _backend(engines), **fingerprint_of_rest(engines.manifest, plan, sampling)}


def readable_hash(video: VideoInfo) -> str:
    """As `content_hash`; raises `UserError` where the video cannot be read any more."""
    try:
        return content_hash(video)
    except OSError as error:
        raise UserError(f"{video.path} cannot be read any more ({error}); check the file.") from error


def fingerprint_of_rest(manifest: Manifest, plan: Plan, sampling: Sampling) -> dict[str, Any]:
    """That of a run but for what takes time to know: the contents of the video, and which backend runs the engines."""
    graphs = "".join(manifest.graphs[graph][0].sha256 for graph in sorted(manifest.graphs))
    return {
        **_seen_as(plan.video.images.view if plan.video.images else View()),
        "engines": hashlib.sha256(graphs.encode()).hexdigest(),
        "size": f"{plan.width}x{plan.height}",
        "stride": plan.stride,
        "frames": plan.num_frames,
        "shots": _shots(plan),
        **dataclasses.asdict(sampling),
        "guidance_scale": max(sampling.guidance_scale, 1.0),  # up to 1 there is none
    }


def differences(found: Fingerprint, now: Fingerprint) -> dict[str, tuple[Any, Any]] | None:
    """What differs, by name: as it was found and as it is now; None where another version of dc-rt had other names.

    An option that was added since then had its default.
    """
    defaults = vars(Sampling()) | _seen_as(View()) | {"shots": _ONE_SHOT}
    added = {name: value for name, value in defaults.items() if name in now}
    known = added | {_CALLED_BEFORE.get(name, name): value for name, value in found.items()}
    if known.keys() != now.keys():
        return None
    return {name: (known[name], now[name]) for name in now if known[name] != now[name]}


def _shots(plan: Plan) -> str:
    """Where all but the first begin; "auto" where that is found, which the spool then keeps."""
    if plan.shots is None:
        return "auto"
    return ", ".join(map(str, plan.shots[1:])) or _ONE_SHOT


def _backend(engines: EngineSet) -> str:
    """As earlier versions had it, where PyTorch computes as it did for them."""
    default = engines.attention in (None, DEFAULT_ATTENTION)
    backend = engines.backend if default else f"{engines.backend}, attention by {engines.attention}"
    return backend + in_words(engines.torch_steps)


def _seen_as(view: View) -> dict[str, Any]:
    return {"view": view.name, "exposure": view.exposure}


def content_hash(video: VideoInfo) -> str:
    """SHA-256 of a file, or of the names and contents of images; of a pipe, of what its frames are.

    The frames themselves come later: they are compared with those that are kept.
    """
    if video.pipe:
        return hashlib.sha256(repr((video.pipe.form, video.fps)).encode()).hexdigest()
    if video.images:
        images = ((image.name, _file_hash(image)) for image in video.images.files)
        return hashlib.sha256(repr(list(images)).encode()).hexdigest()
    return _file_hash(video.path)


def stamp_of(video: VideoInfo) -> str:
    """What changes when a file, or one of the images, is written to, and can be told without reading it.

    Its size and time. Empty for a pipe, and for what cannot be looked at.
    """
    if video.pipe:
        return ""
    try:
        found = [(path.name, path.stat()) for path in (video.images.files if video.images else [video.path])]
    except OSError:
        return ""
    return hashlib.sha256(repr([(name, at.st_size, at.st_mtime_ns) for name, at in found]).encode()).hexdigest()


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
