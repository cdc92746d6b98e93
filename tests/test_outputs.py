"""The table of outputs: which are written, what a writer is handed, and rows of other packages."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from command_helpers import dc_rt
from dc_rt.depth import range_of
from dc_rt.media import read_frames
from dc_rt.outputs import Output, all_outputs
from job_helpers import choose, run_job
from media_helpers import moving_gradient, write_clip

FAST = ("--num-denoising-steps", "1", "--window-size", "16", "--overlap", "5")


@pytest.fixture
def clip():
    return write_clip(Path("clip.mp4"), moving_gradient(12, 70, 100, seed=1), Fraction(24))


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        ((), {"clip_depth.mp4", "clip_vis.mp4", "clip_input.mp4"}),
        (("--outputs", "npz"), {"clip.npz"}),
        (("--outputs", "vis.mp4, exr"), {"clip_vis.mp4", "clip"}),
        (("--outputs", "png", "--save-npz"), {"clip.npz", "clip"}),
        (("--save-npz",), {"clip_depth.mp4", "clip_vis.mp4", "clip_input.mp4", "clip.npz"}),
    ],
)
def test_what_is_asked_for_is_written_and_nothing_else(clip, arguments, files):
    assert dc_rt("infer", clip, *FAST, *arguments).returncode == 0
    assert {path.name for path in Path("demo_output").iterdir()} == files | {"clip.json"}


def test_an_unknown_output_is_one_sentence(clip):
    done = dc_rt("infer", clip, "--outputs", "depth.mp4,bmp")
    assert done.returncode == 1
    assert done.stderr == f"There is no --outputs bmp; choose of {', '.join(all_outputs())}.\n"


HANDED: list[Any] = []


class Everything:
    """A writer that keeps all that it is handed."""

    def __init__(self, path, result):
        self.path, self.result = path, result

    def write(self, frame):
        HANDED.append((self.result, frame))

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self.path.write_text(f"{len(HANDED)} frames\n")


def with_row(monkeypatch, **row):
    table = dict(all_outputs())
    known = Output("all", "_all.txt", "everything", 1, "test_outputs:Everything", **row)
    for module in ("dc_rt.outputs", "dc_rt.options", "dc_rt.job.targets"):
        monkeypatch.setattr(f"{module}.all_outputs", lambda: table | {"all": known})


def sounding_clip(path):
    """One second of pictures and a tone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.height, stream.width, stream.pix_fmt = 70, 100, "yuv420p"
        sound = container.add_stream("aac", rate=48000)
        for picture in moving_gradient(24, 70, 100, seed=1):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
        for start in range(0, 48000, 1024):
            wave = np.sin(np.arange(start, start + 1024) / 20)[None].astype(np.float32)
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return path


def test_a_writer_is_handed_the_frame_its_depth_the_source_and_the_sound(bundled, monkeypatch):
    clip = sounding_clip(Path("clip.mp4"))
    with_row(monkeypatch, needs=frozenset({"source", "audio"}))
    HANDED.clear()
    run_job(bundled, clip, Path("out"), choose("npz", "all", steps=1, window_size=16, overlap=5, target_fps=12))
    assert Path("out/clip_all.txt").read_text() == "12 frames\n"
    depths = np.load("out/clip.npz")["depth"]
    shown = list(read_frames(clip, 70, 100, stride=2))
    small = list(read_frames(clip, 64, 128, stride=2))
    packets = []
    for index, (result, frame) in enumerate(HANDED):
        assert (frame.index, frame.number, frame.time, frame.shot) == (index, index, Fraction(index, 12), 0)
        low, high = range_of(result.shots)
        np.testing.assert_array_equal(frame.depth, depths[index])
        np.testing.assert_allclose((frame.raw - low) / (high - low), frame.depth, atol=1e-6)
        np.testing.assert_array_equal(frame.image, small[index])
        np.testing.assert_array_equal(frame.source_image, shown[index])
        for packet in frame.audio:
            assert packet.pts * packet.time_base < frame.time + Fraction(1, 12) or index == 11
        packets += [bytes(packet) for packet in frame.audio]
    assert HANDED[0][0].audio.codec_context.name == "aac"
    with av.open(str(clip)) as container:
        assert packets == [bytes(packet) for packet in container.demux(audio=0) if packet.pts is not None]


def test_what_no_row_needs_is_not_read(bundled, clip, monkeypatch):
    with_row(monkeypatch)
    HANDED.clear()
    run_job(bundled, clip, Path("out"), choose("all", steps=1))
    assert all(frame.source_image is None and frame.audio == () for _, frame in HANDED)


PLUGIN = """
from dc_rt.outputs import Output

ROW = Output("mean.txt", "_mean.txt", "a mean a frame", 1, "dc_rt_mean:Writer")


class Writer:
    def __init__(self, path, result):
        self.file = open(path, "w")

    def write(self, frame):
        print(float(frame.depth.mean()), file=self.file)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()
"""


def install(folder, contents, module="dc_rt_mean"):
    """A package with an output, as pip would leave it."""
    (folder / f"{module}.py").write_text(contents)
    info = folder / f"{module}-1.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[dc_rt.outputs]\nmean.txt = {module}:ROW\n")


def run_with(folder, *arguments):
    code = f"import sys; sys.path.append({str(folder)!r}); from dc_rt.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_output_of_another_package_is_one_like_any(clip, tmp_path):
    install(tmp_path, PLUGIN)
    done = run_with(tmp_path, "infer", clip, *FAST, "--outputs", "mean.txt,npz", "--save-folder", "out")
    assert done.returncode == 0, done.stderr
    means = [float(line) for line in Path("out/clip_mean.txt").read_text().splitlines()]
    np.testing.assert_allclose(means, np.load("out/clip.npz")["depth"].mean(axis=(1, 2)), rtol=1e-6)
    assert "clip_mean.txt" in json.loads(Path("out/clip.json").read_text())["files"]


@pytest.mark.parametrize("contents", ["import nothing_of_the_kind", "ROW = 3"])
def test_an_output_of_another_package_that_is_none_is_one_sentence(clip, tmp_path, contents):
    install(tmp_path, contents)
    done = run_with(tmp_path, "infer", clip, *FAST, "--outputs", "mean.txt")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "The output mean.txt of the package dc_rt_mean" in done.stderr


def test_no_two_rows_share_a_suffix():
    assert len({row.suffix for row in all_outputs().values()}) == len(all_outputs())
