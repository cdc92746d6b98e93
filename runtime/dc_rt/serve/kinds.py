"""Which files are taken for videos, by their first bytes: before anything of FFmpeg's opens them.

FFmpeg knows formats that open other files or addresses: play lists (HLS, DASH), lists of files (concat), SDP. None of
these begins as a file of this table does, and a video is only opened as one of the formats that are named here.
"""

from __future__ import annotations

import os
from pathlib import Path

import av

from dc_rt.errors import UserError
from dc_rt.media.pyav import open_input
from dc_rt.media.read_images import is_image

_HEAD_BYTES = 400
_TS_PACKETS = ((0, 188), (4, 192))  # where the first packet of a transport stream is, and how far it is to the next
_QUICKTIME = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")

# By the first bytes: the suffix that the file is kept with.
_STARTS = {
    b"\x1a\x45\xdf\xa3": ".mkv",
    b"FLV\x01": ".flv",
    b"OggS": ".ogv",
    b"\x00\x00\x01\xba": ".mpg",
    b"\x00\x00\x01\xb3": ".mpg",
    b"\x06\x0e\x2b\x34": ".mxf",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": ".wmv",
    b"GIF87a": ".gif",
    b"GIF89a": ".gif",
    b"YUV4MPEG2 ": ".y4m",
    b"DKIF": ".ivf",
}
_IMAGE_STARTS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"BM",
    b"RIFF",
    b"\x76\x2f\x31\x01",
    b"SDPX",
    b"XPDS",
)
SUFFIXES = tuple(sorted({*_STARTS.values(), ".mp4", ".mov", ".avi", ".webm", ".ts", ".m2ts", ".m4v", ".mpeg"}))
"""Of files that are usually one of these kinds, to be shown to people."""

# FFmpeg's names of them. It opens a file as nothing else, whatever it takes it for.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,ogg,mpeg,mpegvideo,mpegts,mxf,asf,gif,yuv4mpegpipe,ivf"


def video_suffix(path: Path) -> str | None:
    """The suffix of the kind of video that a file begins as; None where it begins as none that is taken."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head[4:8] in _QUICKTIME:
        return ".mov" if head[4:8] != b"ftyp" or head[8:10] == b"qt" else ".mp4"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return ".avi"
    for start, step in _TS_PACKETS:
        if head[start : start + 2 * step + 1 : step] == b"\x47" * 3:
            return ".ts"
    return next((suffix for start, suffix in _STARTS.items() if head.startswith(start)), None)


def not_taken(name: str) -> UserError:
    """What to raise for a file that is no video of these kinds."""
    return UserError(f"{name} is no video of a kind that is taken; send one of {', '.join(SUFFIXES)}.")


def check_video(path: Path, name: str) -> None:
    """Raise `UserError`, which calls it `name`, unless a file is a video of a kind that opens no other file."""
    if video_suffix(path) is None:
        raise not_taken(name)
    try:
        open_input(f"file:{path}", options={"format_whitelist": _FORMATS}).close()
    except (av.FFmpegError, ValueError) as error:
        raise UserError(f"{name} cannot be opened: it is damaged, or not whole; copy or download it again.") from error


def check_images(folder: Path, name: str, roots: tuple[Path, ...]) -> None:
    """Raise `UserError`, which calls it `name`, where an image in a folder is none, or is a link out of the roots."""
    for entry in os.scandir(folder):
        path = Path(entry.path)
        if not is_image(path):
            continue
        if not is_under(Path(os.path.realpath(path)), roots) or not _begins_as_image(path):
            raise UserError(f"{name} holds {path.name}, which is no image that can be read; take it out.")


def is_under(path: Path, roots: tuple[Path, ...]) -> bool:
    """Whether a resolved path is in one of the resolved folders."""
    return any(path.is_relative_to(root) for root in roots)


def _begins_as_image(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return head.startswith(_IMAGE_STARTS) or head[4:8] == b"ftyp"
