"""Pixels in and out of files: videos and folders of images in; videos, NPZ, EXR, PNG and TIFF out."""

from dc_rt.media.colormap import coloured, inferno, to_uint8, to_uint16
from dc_rt.media.decode import Damage
from dc_rt.media.read import IMAGE_FOLDER_FPS, VideoInfo, probe, read_at_sizes, read_frames
from dc_rt.media.read_images import IMAGE_SUFFIXES, list_images
from dc_rt.media.sizes import frame_stride, output_size
from dc_rt.media.timeline import Timeline
from dc_rt.media.write_frames import ExrWriter, PngWriter, TiffWriter
from dc_rt.media.write_npz import NpzWriter
from dc_rt.media.write_video import VideoWriter, check_video

__all__ = [
    "IMAGE_FOLDER_FPS",
    "IMAGE_SUFFIXES",
    "Damage",
    "ExrWriter",
    "NpzWriter",
    "PngWriter",
    "TiffWriter",
    "Timeline",
    "VideoInfo",
    "VideoWriter",
    "check_video",
    "coloured",
    "frame_stride",
    "inferno",
    "list_images",
    "output_size",
    "probe",
    "read_at_sizes",
    "read_frames",
    "to_uint8",
    "to_uint16",
]
