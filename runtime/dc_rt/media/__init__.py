"""Pixels in and out of files: videos and folders of images in; MP4, NPZ, EXR and PNG out."""

from dc_rt.media.colormap import inferno, to_uint8
from dc_rt.media.decode import Damage
from dc_rt.media.read import IMAGE_FOLDER_FPS, VideoInfo, probe, read_at_sizes, read_frames
from dc_rt.media.read_images import IMAGE_SUFFIXES, list_images
from dc_rt.media.sizes import frame_stride, output_size
from dc_rt.media.timeline import Timeline
from dc_rt.media.write import ExrWriter, Mp4Writer, NpzWriter, PngWriter

__all__ = [
    "IMAGE_FOLDER_FPS",
    "IMAGE_SUFFIXES",
    "Damage",
    "ExrWriter",
    "Mp4Writer",
    "NpzWriter",
    "PngWriter",
    "Timeline",
    "VideoInfo",
    "frame_stride",
    "inferno",
    "list_images",
    "output_size",
    "probe",
    "read_at_sizes",
    "read_frames",
    "to_uint8",
]
