"""The formats that results are written in: codecs of video and where sound goes with them, and the presets of EXR.

Nothing but tables and what follows from them: no library is imported, since `dc-rt --help` lists these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class VideoCodec:
    """How one codec is written.

    Attributes:
        words: what it is called.
        encoder: FFmpeg's name of what writes it.
        containers: suffixes of the containers that hold it, the first of which it is written to.
        pixel_format: of FFmpeg's: how pictures are stored.
        odd_pixel_format: likewise, where height or width is odd.
        bits: of a grey value.
        bytes_per_pixel: that its files take at most, but for headers.
        options: of the encoder.
        tag: that tells players of it in MP4, where they look for another one than FFmpeg's.
    """

    words: str
    encoder: str
    containers: tuple[str, ...]
    pixel_format: str
    odd_pixel_format: str
    bits: int
    bytes_per_pixel: float
    options: Mapping[str, str] = field(default_factory=dict)
    tag: str | None = None

    def stored_as(self, height: int, width: int) -> str:
        """The pixel format for this size: colour at half the resolution takes even ones alone, in most codecs."""
        return self.odd_pixel_format if height % 2 or width % 2 else self.pixel_format


# A resumed run must end in the very files of one that was not interrupted: no encoder may depend on the number of
# cores, and x264's and x265's macroblock trees stay off, whose AVX-512 code gives other bytes for the same frames now
# and then. No B-frames, since an MP4 file of frames that are stored out of order cannot say how long each is shown.
VIDEO_CODECS: dict[str, VideoCodec] = {
    "h264": VideoCodec(
        "H.264, 8 bits",
        "libx264",
        ("mp4", "mov", "mkv"),
        "yuv420p",
        "yuv444p",
        8,
        1 / 3,
        # "veryfast" takes 0.4 of the default's time for files of the same quality that are 5 % larger.
        {"crf": "18", "preset": "veryfast", "x264-params": "mbtree=0:bframes=0"},
    ),
    "hevc": VideoCodec(
        "HEVC, 10 bits",
        "libx265",
        ("mp4", "mov", "mkv"),
        "yuv420p10le",
        "yuv444p10le",
        10,
        1.0,
        {
            "crf": "10",
            "preset": "veryfast",
            # Of pictures that are one coding tree unit wide, x265 gives other bytes each time; by itself one has 64
            # pixels.
            "x265-params": "pools=none:frame-threads=1:bframes=0:cutree=0:ctu=32:log-level=none",
        },
        tag="hvc1",
    ),
    "ffv1": VideoCodec("FFV1, 16 bits, lossless", "ffv1", ("mkv",), "gray16le", "gray16le", 16, 2.2, {"g": "1"}),
    "prores": VideoCodec(
        "ProRes 4444, 10 bits",
        "prores_ks",
        ("mov", "mkv"),
        "yuv444p10le",
        "yuv444p10le",
        10,
        1.5,
        {"profile": "4444", "vendor": "apl0"},
    ),
    "av1": VideoCodec(
        "AV1, 10 bits",
        "libsvtav1",
        ("mp4", "mkv"),
        "yuv420p10le",
        "yuv420p10le",
        10,
        1.0,
        {"crf": "8", "preset": "6", "svtav1-params": "lp=1:enable-tf=0"},
    ),
}
"""By the value of `depth_codec`."""

CONTAINERS = ("mp4", "mov", "mkv")
"""Suffixes of all that videos are written to."""

# FFmpeg's names. It would put more into these two, which players do not look for there.
_IN_MP4 = frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"})
_IN_MOV = frozenset({"aac", "ac3", "alac", "eac3", "mp3"})


def container_for(codec: str, audio_codec: str | None) -> str:
    """The suffix, "mp4" for example, of what a video of a codec is written to with sound of another, or without any.

    Args:
        codec: a key of `VIDEO_CODECS`.
        audio_codec: FFmpeg's name of it; None where no sound is copied.
    """
    containers = VIDEO_CODECS[codec].containers
    return next((each for each in containers if audio_codec is None or _holds(each, audio_codec)), containers[-1])


def _holds(container: str, audio_codec: str) -> bool:
    if container == "mp4":
        return audio_codec in _IN_MP4
    return container == "mkv" or audio_codec in _IN_MOV or audio_codec.startswith("pcm_")


@dataclass(frozen=True)
class ExrPreset:
    """How depth is laid out in EXR files for one program.

    Attributes:
        channels: their names, all of which hold the same.
        is_far_white: whether large is far, unless `polarity` says otherwise.
        words: channels and polarity.
        attributes: text in the header that the program looks for.
    """

    channels: tuple[str, ...]
    is_far_white: bool
    words: str
    attributes: Mapping[str, str] = field(default_factory=dict)


EXR_PRESETS: dict[str, ExrPreset] = {
    "z": ExrPreset(("Z",), False, "Z, large is near"),
    # A name is split at its dots into layer and channel; nodes such as ZDefocus take their depth from `depth.Z`.
    "nuke": ExrPreset(("depth.Z",), True, "depth.Z, large is far, as its defocus has it"),
    # Blender splits names into layer, pass and channel, and tells its own files by the attribute
    # (source/blender/imbuf/intern/openexr/openexr_api.cpp).
    "blender": ExrPreset(
        ("ViewLayer.Depth.Z",),
        True,
        "ViewLayer.Depth.Z, large is far",
        {"BlenderMultiChannel": "Blender V2.55.1 and newer"},
    ),
    # Its Loader takes these four names unless others are typed in; its Z falls with the distance, as this does.
    "fusion": ExrPreset(("R", "G", "B", "Z"), False, "Z and a picture of it, large is near"),
    "rgb": ExrPreset(("R", "G", "B"), False, "R, G and B for viewers that show no lone Z, large is near"),
}
"""By the value of `exr`."""

COLORMAPS = ("inferno", "turbo", "spectral", "grey")
"""Dark to bright; blue to red (A. Mikhailov, Google, Apache-2.0); likewise, softer (ColorBrewer, C. Brewer and others,
Apache-2.0); black to white. Near is what comes last."""


def exr_bytes_per_pixel(preset: str, kind: str) -> float:
    """Of the files of a preset at most, of numbers of the `kind` "float" or "half"."""
    return len(EXR_PRESETS[preset].channels) * {"float": 4, "half": 2}[kind]
