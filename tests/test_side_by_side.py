"""Source, grey and colours in one video, and commands that make videos to look at, as users run them."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from command_helpers import assert_refused, dc_rt
from dc_rt.media import coloured, probe
from media_helpers import decode, moving_gradient, write_clip, write_clip_with_sound

FAST = ("--num-denoising-steps", "1", "--window-size", "16", "--overlap", "5")


@pytest.fixture
def clip() -> Path:
    """Of another size than the model takes."""
    return write_clip_with_sound(Path("clip.mp4"), moving_gradient(4, 90, 120))


def sound(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def test_source_grey_and_colours_are_beside_one_another_with_the_sound(clip: Path) -> None:
    done = dc_rt("infer", clip, *FAST, "--size", "source", "--side-by-side", "--save-npz", "--colormap", "turbo")
    assert done.returncode == 0, done.stderr
    path = Path("demo_output/clip_side_by_side.mp4")
    frames = decode(path)
    assert frames.shape == (4, 90, 360, 3)
    depth = np.load("demo_output/clip.npz")["depth"]
    source, grey, colours = np.split(frames[2].astype(int), 3, axis=1)
    assert np.abs(source - decode(clip)[2]).mean() < 4
    assert np.abs(grey - (depth[2] * 255)[..., None]).mean() < 4
    assert np.abs(colours - coloured(depth[2], "turbo")).mean() < 8
    assert sound(path) == sound(clip)
    assert probe(path).fps == 24
    assert "clip_side_by_side.mp4" in json.loads(Path("demo_output/clip.json").read_text())["files"]


def test_stereo_is_of_the_size_of_the_source_and_nothing_else_is_written(clip: Path) -> None:
    done = dc_rt("stereo", clip, *FAST, "--stereo", "left+right", "--save-folder", "out")
    assert done.returncode == 0, done.stderr
    names = ["clip.json", "clip_left.mp4", "clip_right.mp4"]
    assert sorted(path.name for path in Path("out").iterdir()) == names
    for name in names[1:]:
        assert decode(Path("out", name)).shape == (4, 90, 120, 3)
        assert sound(Path("out", name)) == sound(clip)
    done = dc_rt("stereo", clip, *FAST, "--outputs", "iw3", "--size", "model", "--save-folder", "out")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in Path("out").iterdir()) == [*names[:1], "clip_iw3", *names[1:]]


def test_stereo_of_kept_depth_is_that_of_a_run(clip: Path) -> None:
    done = dc_rt("infer", clip, *FAST, "--outputs", "npz", "--keep", "raw", "--save-folder", "kept")
    assert done.returncode == 0, done.stderr
    options = ("--stereo", "half-sbs", "--disparity", 5, "--save-folder")
    done = dc_rt("stereo", "kept/clip.raw.zarr.zip", *options, "from-raw")
    assert done.returncode == 0, done.stderr
    assert "engines" not in done.stdout
    assert dc_rt("stereo", clip, *FAST, *options, "from-video").returncode == 0
    name = "clip_3D_HSBS_LR.mp4"
    assert Path("from-raw", name).read_bytes() == Path("from-video", name).read_bytes()
    for run_option, flag in (["--dry-run"], "--dry-run"), (["--process-length", 2], "--process-length"):
        refused = dc_rt("stereo", "kept/clip.raw.zarr.zip", *run_option, "--save-folder", "none")
        assert_refused(refused, rf"{flag} is of a run of the model, and kept.clip\.raw.* was made by one; leave it out")
        assert not Path("none").exists()
    both = dc_rt("stereo", "kept/clip.raw.zarr.zip", clip)
    assert_refused(both, "Videos and raw files are not taken together; give them in commands of their own")


def test_two_results_are_compared_and_their_difference_is_not_overwritten(clip: Path) -> None:
    for seed in 1, 2:
        done = dc_rt("infer", clip, *FAST, "--outputs", "npz,png", "--seed", seed, "--save-folder", f"seed{seed}")
        assert done.returncode == 0, done.stderr
    done = dc_rt("compare", "seed1/clip.npz", "seed2/clip", "--save-folder", "out")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("A and B: 4 frames, ")
    assert [line.split()[0] for line in lines[1:6]] == ["|A", "aligned", "correlation", "flicker", "most"]
    assert lines[6].startswith(f"{Path('out/clip_vs_clip.mp4')}: red where A is larger")
    assert len(decode(Path("out/clip_vs_clip.mp4"))) == 4
    again = dc_rt("compare", "seed1/clip.npz", "seed2/clip", "--save-folder", "out")
    assert_refused(
        again, r"clip_vs_clip\.mp4 is there already; replace it with --overwrite, or give another --save-fol"
    )
    done = dc_rt("compare", "seed1/clip.npz", "seed2/clip", "--save-folder", "out", "--overwrite", "--side-by-side")
    assert done.returncode == 0, done.stderr
    width = decode(Path("out/clip_vs_clip.mp4")).shape[2]
    assert width == 3 * np.load("seed1/clip.npz")["depth"].shape[2]
    assert sorted(path.name for path in Path("out").iterdir()) == ["clip_vs_clip.mp4"]


def test_results_that_cannot_be_compared_get_one_sentence(clip: Path) -> None:
    write_clip(Path("coloured.mp4"), moving_gradient(4, 90, 120))
    np.savez("a.npz", depth=np.zeros((3, 90, 120), np.float32))
    assert_refused(dc_rt("compare", "a.npz", "coloured.mp4"), "a.npz has 3 frames and coloured.mp4 has 4")
    assert_refused(dc_rt("compare", "coloured.mp4", "coloured.mp4"), "coloured.mp4 is in colours")
    assert_refused(dc_rt("compare", "a.npz", "b.npz"), "b.npz cannot be read")
    assert not Path("demo_output").exists() or not list(Path("demo_output").iterdir())
