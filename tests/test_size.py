"""Results at another size than the model's, through whole runs: each file of exactly the size that was asked for, of
sources of every shape, and the depth in it that of the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import OpenEXR
import pytest
from numpy.typing import NDArray
from PIL import Image

from command_helpers import assert_refused, dc_rt
from dc_rt import DepthCrafter, UserError
from dc_rt.media import probe, read_frames
from dc_rt.media.upsample import Upsampler
from dc_rt.options import Outputs
from depthcrafter.nano.scenes import make_clip
from job_helpers import choose, run_job
from media_helpers import with_matrix, write_clip, write_images, write_timed

FRAMES = 2
RUN = {"steps": 1, "max_res": 128}


def scene(height: int, width: int) -> NDArray[np.uint8]:
    return make_clip(409, FRAMES, height, width).frames


def landscape(folder: Path) -> Path:
    return write_clip(folder / "clip.mp4", scene(182, 322))


def portrait(folder: Path) -> Path:
    return write_clip(folder / "clip.mp4", scene(322, 180))


def phone(folder: Path) -> Path:
    """Stored lying, shown upright."""
    return with_matrix(write_clip(folder / "clip.mp4", scene(180, 322)), 0, 1, -1, 0)


def anamorphic(folder: Path) -> Path:
    """Wide pixels, such as those of a DVD."""
    picture = scene(144, 180)[0]
    ticks = range(FRAMES)
    return write_timed(
        folder / "clip.mp4", ticks, Fraction(1, 24), sample_aspect_ratio=Fraction(64, 45), picture=picture
    )


def anamorphic_phone(folder: Path) -> Path:
    return with_matrix(anamorphic(folder), 0, 1, -1, 0)


def odd(folder: Path) -> Path:
    return write_clip(folder / "clip.mp4", scene(181, 321), pixel_format="yuv444p")


def odd_images(folder: Path) -> Path:
    return write_images(folder / "clip", scene(131, 97))


SOURCES: dict[Callable[[Path], Path], tuple[int, int]] = {
    landscape: (182, 322),
    portrait: (322, 180),
    phone: (322, 180),
    anamorphic: (144, 180),
    anamorphic_phone: (180, 144),
    odd: (181, 321),
    odd_images: (131, 97),
}
"""Height and width as stored, turned as shown."""


def run(model: DepthCrafter, clip: Path, folder: Path, **outputs: Any) -> NDArray[np.float32]:
    """The depth of a run that writes everything: float32 [T,H,W]."""
    run_job(model, clip, folder, choose("npz", "exr", "png", **RUN), **outputs)
    depth: NDArray[np.float32] = np.load(folder / "clip.npz")["depth"]
    return depth


def assert_all_of_size(folder: Path, height: int, width: int, aspect: Fraction) -> None:
    """Every file has that size, and is shown with that ratio of width to height."""
    for kind in ("depth", "vis", "input"):
        path = folder / f"clip_{kind}.mp4"
        with av.open(str(path)) as container:
            frames = list(container.decode(video=0))
            assert [(frame.height, frame.width) for frame in frames] == [(height, width)] * FRAMES
        assert float(probe(path).aspect) == pytest.approx(float(aspect), rel=1e-4)
    for number in range(FRAMES):
        exr = OpenEXR.File(str(folder / "clip" / f"frame_{number:04d}.exr"))
        assert exr.channels()["Z"].pixels.shape == (height, width)
        assert exr.header()["pixelAspectRatio"] == pytest.approx(float(aspect * height / width), rel=1e-6)
        assert Image.open(folder / "clip" / f"frame_{number:04d}.png").size == (width, height)
    result = json.loads((folder / "clip.json").read_text())["result"]
    assert (result["height"], result["width"]) == (height, width)


@pytest.mark.parametrize("write", SOURCES, ids=lambda write: write.__name__)
def test_every_result_has_the_size_of_the_source(
    bundled: DepthCrafter, tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    clip, size = write(tmp_path), SOURCES[write]
    depth = run(bundled, clip, tmp_path / "out", size="source")
    assert depth.shape == (FRAMES, *size)
    assert_all_of_size(tmp_path / "out", *size, probe(clip).aspect)


@pytest.mark.parametrize("size", ["640x360", "33x57", "64x32", "17x9"])
def test_every_result_has_the_size_that_is_given(bundled: DepthCrafter, tmp_path: Path, size: str) -> None:
    clip = landscape(tmp_path)
    width, height = map(int, size.split("x"))
    depth = run(bundled, clip, tmp_path / "out", size=size)
    assert depth.shape == (FRAMES, height, width)
    assert_all_of_size(tmp_path / "out", height, width, Fraction(322, 182))


@pytest.mark.parametrize("write", [landscape, phone, anamorphic_phone], ids=lambda write: write.__name__)
def test_depth_at_the_sources_size_is_that_of_the_model(
    bundled: DepthCrafter, tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    clip, (height, width) = write(tmp_path), SOURCES[write]
    small = run(bundled, clip, tmp_path / "model")
    for upscale in ("bilinear", "guided"):
        found = run(bundled, clip, tmp_path / upscale, size="source", upscale=upscale)
        upsample = Upsampler(small.shape[1:], (height, width), upscale)
        pictures = read_frames(clip, height, width)
        expected = np.stack([upsample(depth, picture) for depth, picture in zip(small, pictures, strict=True)])
        # Normalised before, not after: bilinear is the same, and guided but for how high a step is.
        np.testing.assert_allclose(found, expected, atol=1e-6 if upscale == "bilinear" else 0.1)
        assert np.abs(found - expected).mean() < 1e-3


def test_the_size_of_the_model_is_the_default_and_no_picture_is_read_for_it(
    bundled: DepthCrafter, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", scene(64, 128))
    default = run(bundled, clip, tmp_path / "default")
    for number, size in enumerate(("model", "source", "128x64")):
        np.testing.assert_array_equal(run(bundled, clip, tmp_path / str(number), size=size), default)
        for name in ("clip_depth.mp4", "clip_vis.mp4", "clip_input.mp4", "clip/frame_0001.exr"):
            assert (tmp_path / str(number) / name).read_bytes() == (tmp_path / "default" / name).read_bytes()


def test_a_resumed_run_may_ask_for_another_size(bundled: DepthCrafter, tmp_path: Path) -> None:
    """What was written early at the size of before is not taken."""
    clip = landscape(tmp_path)

    class Ended(Exception):
        pass

    def end(stage: str, *_: object) -> None:
        if stage == "write":
            raise Ended

    with pytest.raises(Ended):
        run_job(bundled, clip, tmp_path / "out", choose(**RUN), end)
    run_job(bundled, clip, tmp_path / "out", choose(**RUN), size="source")
    with av.open(str(tmp_path / "out" / "clip_input.mp4")) as container:
        assert container.streams.video[0].height == 182


@pytest.mark.parametrize(
    "size", ["0x0", "-3x5", "0x100", "16385x100", "16384x16384", "12", "axb", "", "1.5x2", "1x2x3"]
)
def test_a_size_that_cannot_be_is_one_sentence(size: str) -> None:
    with pytest.raises(UserError, match=r"must be model, source or WxH, of 1 to 16384 pixels a side and at most"):
        Outputs(size=size)


@pytest.mark.parametrize("size", ["16384x8192", "8192x16384", "1x1", "321x181"])
def test_odd_and_large_sizes_are_none_of_those(size: str) -> None:
    assert Outputs(size=size).size == size


def test_the_command_line_says_sizes(tmp_path: Path) -> None:
    clip = odd(tmp_path)
    options = ("--max-res", "128", "--num-denoising-steps", "1", "--save-folder", str(tmp_path / "out"))
    done = dc_rt("infer", str(clip), *options, "--size", "source")
    assert done.returncode == 0, done.stderr
    assert "results of 321x181" in done.stdout + done.stderr
    assert "321x181 is odd: H.264 is stored as yuv444p" in done.stdout + done.stderr
    refused = dc_rt("infer", str(clip), *options, "--size", "0x9")
    assert_refused(refused, "--size must be model, source or WxH")
