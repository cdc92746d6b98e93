"""Videos that ComfyUI hands on, as files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from uuid import uuid4

from comfy_api.latest import Input, InputImpl

from dc_rt.errors import UserError, option

_FOLDER = "dc-rt"


def file_of(video: Input.Video, temporary: Path) -> Path:
    """The file of a video: its own where it is all of one, else another in ComfyUI's temporary folder.

    That one is called by its contents, so that the same frames have the same results.

    Raises:
        UserError: the video cannot be written to a file.
        OSError: the disk refuses.
    """
    source = video.get_stream_source() if type(video) is InputImpl.VideoFromFile else None
    if isinstance(source, str) and _is_all_of(video, source):
        return Path(source).absolute()
    folder = temporary / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    unnamed = folder / f"{uuid4().hex}.mp4"
    try:
        if source is not None and not isinstance(source, str):
            unnamed.write_bytes(source.getbuffer())
        else:
            _save(video, unnamed)
        with unnamed.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        named = folder / f"video_{digest[:16]}.mp4"
        unnamed.replace(named)
    finally:
        unnamed.unlink(missing_ok=True)
    return named


def _save(video: Input.Video, path: Path) -> None:
    try:
        video.save_to(str(path))
    except Exception as error:  # of ComfyUI or of another pack, which may raise anything
        raise UserError(
            f"The connected video cannot be written to a file ({error}); give a path in {option('video_path')}."
        ) from error


def _is_all_of(video: Input.Video, source: str) -> bool:
    """Whether nothing was cut off: newer versions of ComfyUI have videos that are a part of their file's."""
    whole = InputImpl.VideoFromFile(source)
    return (video.get_dimensions(), video.get_duration()) == (whole.get_dimensions(), whole.get_duration())
