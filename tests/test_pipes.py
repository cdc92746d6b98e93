"""Frames through pipes, in and out, as `ffmpeg ... | dc-rt infer - --outputs - | ffmpeg ...` has them."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from command_helpers import assert_refused, contents, dc_rt
from dc_rt import Outputs, UserError
from dc_rt.engine.discovery import BUNDLED
from dc_rt.job import ChildJob
from dc_rt.media import to_uint8
from media_helpers import moving_gradient, real_clip, write_clip, write_images, write_timed

FAST = ("--num-denoising-steps", "1", "--max-res", "64", "--window-size", "8", "--overlap", "2")
RANGE = ("--range", "0.2,0.9")


def yuv4mpeg(frames: NDArray[np.uint8], tag: str = "420jpeg", rate: str = "25:1", more: str = "") -> bytes:
    """A stream of RGB frames, by plain Python."""
    kind = {"420jpeg": "yuv420p", "420mpeg2": "yuv420p", "444p10": "yuv444p10le", "mono": "gray"}[tag]
    height, width = frames.shape[1:3]
    stream = f"YUV4MPEG2 W{width} H{height} F{rate} Ip A1:1 C{tag}{more}\n".encode()
    for frame in frames:
        stream += b"FRAME\n" + raw([frame], kind)
    return stream


def raw(frames: Iterable[NDArray[np.uint8]], kind: str) -> bytes:
    data = b""
    for frame in frames:
        encoder = av.VideoCodecContext.create("rawvideo", "w")
        assert isinstance(encoder, av.VideoCodecContext)
        encoder.height, encoder.width, encoder.pix_fmt, encoder.time_base = *frame.shape[:2], kind, Fraction(1)
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=kind)
        data += b"".join(map(bytes, encoder.encode(picture)))
    return data


def piped(stream: bytes, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    """Run `dc-rt infer -` on a stream; a traceback on its standard error fails the test at once."""
    command = [sys.executable, "-m", "dc_rt.cli", "infer", "-", *map(str, (*FAST, *arguments))]
    done = subprocess.run(command, input=stream, capture_output=True, check=False, timeout=110)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done


def succeeded(done: subprocess.CompletedProcess[bytes]) -> subprocess.CompletedProcess[bytes]:
    assert done.returncode == 0, done.stderr.decode()
    return done


def results(folder: Path) -> dict[str, bytes]:
    return contents(folder, ".json")


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    return moving_gradient(21, 64, 96, seed=3)


@pytest.fixture(scope="module")
def file_run(frames: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, bytes]]:
    """A stream, and what is written of a file that holds it."""
    folder = tmp_path_factory.mktemp("file")
    stream = yuv4mpeg(frames)
    (folder / "clip.y4m").write_bytes(stream)
    done = dc_rt("infer", folder / "clip.y4m", *FAST, *RANGE, "--save-npz", "--save-folder", folder / "out")
    assert done.returncode == 0, done.stderr
    return stream, results(folder / "out")


def test_a_pipe_gives_the_bits_of_the_file_run(file_run: tuple[bytes, dict[str, bytes]], tmp_path: Path) -> None:
    stream, expected = file_run
    succeeded(piped(stream, *RANGE, "--save-npz", "--name", "clip", "--save-folder", tmp_path))
    assert results(tmp_path) == expected
    record = json.loads((tmp_path / "clip.json").read_text())
    assert (record["source"]["path"], record["source"]["num_frames"], record["source"]["fps"]) == ("-", 21, 25)


@pytest.mark.parametrize(
    ("tag", "more", "arguments"),
    [
        ("420mpeg2", "", ("--size", "source", "--target-fps", "12")),
        ("444p10", " XCOLORRANGE=FULL", ("--process-length", "9")),
        ("mono", "", ("--target-fps", "8", "--process-length", "5")),  # fewer than there are, and not all to the end
    ],
)
def test_every_kind_of_stream_gives_the_bits_of_the_file_run(
    frames: NDArray[np.uint8], tmp_path: Path, tag: str, more: str, arguments: tuple[str, ...]
) -> None:
    stream = yuv4mpeg(frames, tag, "24000:1001", more)
    (tmp_path / "stdin.y4m").write_bytes(stream)
    assert dc_rt("infer", tmp_path / "stdin.y4m", *FAST, *arguments, "--save-folder", "file").returncode == 0
    succeeded(piped(stream, *arguments, "--save-folder", "pipe"))
    assert results(Path("pipe")) == results(Path("file"))


def test_the_matrix_that_a_pipe_does_not_say_can_be_said(frames: NDArray[np.uint8], tmp_path: Path) -> None:
    tags = {"x264-params": "colormatrix=bt709:colorprim=bt709:transfer=bt709"}
    clip = write_clip(tmp_path / "clip.mkv", frames, options=tags)
    stream = b"YUV4MPEG2 W96 H64 F24:1 Ip A1:1 C420mpeg2\n"
    with av.open(str(clip)) as container:
        stream += b"".join(b"FRAME\n" + frame.to_ndarray().tobytes() for frame in container.decode(video=0))
    how = ("--outputs", "npz,input.mp4", "--name", "clip", "--save-folder")
    assert dc_rt("infer", clip, *FAST, *how, "file").returncode == 0
    for matrix, is_right in (("bt709", True), ("bt601", False)):
        succeeded(piped(stream, "--pipe-matrix", matrix, *how, matrix))
        assert (results(Path(matrix)) == results(Path("file"))) == is_right


def test_raw_frames_give_the_bits_of_images(frames: NDArray[np.uint8], tmp_path: Path) -> None:
    folder = write_images(tmp_path / "stdin", frames)
    assert dc_rt("infer", folder, *FAST, "--fps", "12", "--save-folder", "images").returncode == 0
    green_blue_red = frames[..., [1, 2, 0]].transpose(0, 3, 1, 2).tobytes()
    for kind, stream in (("bgr24", frames[..., ::-1].tobytes()), ("gbrp", green_blue_red)):
        how = ("--raw-size", "96x64", "--raw-format", kind, "--fps", "12", "--save-folder", kind)
        succeeded(piped(stream, *how))
        assert results(Path(kind)) == results(Path("images"))


def test_a_pipe_that_states_no_rate_is_taken_at_that_of_images(frames: NDArray[np.uint8]) -> None:
    done = succeeded(piped(raw(frames[:2], "rgb24"), "--raw-size", "96x64", "--outputs", "npz"))
    assert b"a pipe that states no rate: taken at 24 frames/s" in done.stdout
    assert json.loads(Path("demo_output/stdin.json").read_text())["source"]["fps"] == 24


@pytest.mark.parametrize(
    ("stream", "arguments", "message"),
    [
        (b"", (), "Nothing came on standard input"),
        (b"RIFF0000AVI ", (), "is no yuv4mpeg that can be read; write it with FFmpeg's `-f yuv4mpegpipe`"),
        (b"YUV4MPEG2 W64 H64 Cnonsense\nFRAME\n", (), "is no yuv4mpeg that can be read"),
        (b"YUV4MPEG2 W64 H64 F25:1 C420jpeg\n", (), "No frame came on standard input"),
        (b"YUV4MPEG2 W64 H64 F25:1 C420jpeg\nFRAME\n" + bytes(6143), (), "ends amid a frame, after 0 whole ones"),
        (
            b"YUV4MPEG2 W64 H64 F25:1 C420jpeg\nHELLO\n" + bytes(6144),
            (),
            "is no frame of yuv4mpeg: the stream is damaged",
        ),
        (bytes(3 * 64 * 64 + 5), ("--raw-size", "64x64"), "ends amid a frame, after 1 whole ones"),
        (
            bytes(64),
            ("--raw-size", "64x64", "--raw-format", "nonsense"),
            "There is no --raw-format nonsense of FFmpeg's",
        ),
        (b"YUV4MPEG2 W64 H64 F25:1 C420jpeg\n", ("--fps", "24"), "states its rate, 25 frames/s; leave --fps out"),
        (b"YUV4MPEG2 W64 H64 F25:1 C420jpeg\n", ("--exposure", "1"), "are of EXR files alone"),
        (b"YUV4MPEG2 W64 H64 F25:1 C420jpeg\n", ("--dry-run",), "what comes through a pipe"),
    ],
)
def test_a_stream_that_is_none_is_one_sentence(stream: bytes, arguments: tuple[str, ...], message: str) -> None:
    done = piped(stream, *arguments)
    text = subprocess.CompletedProcess(done.args, done.returncode, "", done.stderr.decode())
    assert_refused(text, message)


def test_frames_before_a_cut_can_be_had(frames: NDArray[np.uint8]) -> None:
    stream = yuv4mpeg(frames[:5])[:-100]
    assert piped(stream).returncode == 1
    succeeded(piped(stream, "--process-length", "4", "--outputs", "npz", "--restart"))
    assert np.load("demo_output/stdin.npz")["depth"].shape == (4, 64, 64)


def test_the_model_runs_before_the_pipe_ends(frames: NDArray[np.uint8], tmp_path: Path) -> None:
    """The first frame comes out while the writer has still frames to write."""
    stream = yuv4mpeg(frames)
    command = [
        sys.executable,
        "-m",
        "dc_rt.cli",
        "infer",
        "-",
        *FAST,
        *RANGE,
        "--outputs",
        "-",
        "--pipe-format",
        "float32",
    ]
    with subprocess.Popen(
        [*command, "--save-folder", tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as run:
        assert run.stdin
        assert run.stdout
        half = len(stream) * 16 // 21  # two windows, and what lies beyond them
        run.stdin.write(stream[:half])
        run.stdin.flush()
        frame = 4 * 64 * 64
        first = run.stdout.read(frame)
        assert run.poll() is None
        run.stdin.write(stream[half:])
        run.stdin.close()
        rest = run.stdout.read()
    assert (len(first), len(rest), run.returncode) == (frame, 20 * frame, 0)


@pytest.mark.parametrize(
    ("pipe_format", "how"),
    [
        ("float32", ()),
        ("float32", (*RANGE, "--size", "source")),
        ("gray16le", RANGE),
        ("yuv4mpeg", RANGE),
        ("yuv4mpeg", ("--size", "source")),
    ],
)
def test_the_stream_is_the_depth_of_the_files(
    frames: NDArray[np.uint8], tmp_path: Path, pipe_format: str, how: tuple[str, ...]
) -> None:
    clip = write_clip(tmp_path / "clip.mkv", frames[:11], codec="ffv1", pixel_format="bgr0")
    command = [sys.executable, "-m", "dc_rt.cli", "infer", str(clip), *FAST, *how, "--outputs", "-,npz"]
    done = subprocess.run([*command, "--pipe-format", pipe_format], capture_output=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr.decode()
    depth = np.load("demo_output/clip.npz")["depth"]
    assert b"clip.npz" in done.stderr
    if pipe_format == "yuv4mpeg":
        with av.open(io.BytesIO(done.stdout), "r", format="yuv4mpegpipe") as container:
            assert container.streams.video[0].average_rate == 24
            shown = [frame.to_ndarray() for frame in container.decode(video=0)]
        np.testing.assert_array_equal(np.stack(shown), to_uint8(depth))
    else:
        expected = depth if pipe_format == "float32" else np.round(depth * 65535)
        kind = "<f4" if pipe_format == "float32" else "<u2"
        np.testing.assert_array_equal(np.frombuffer(done.stdout, kind).reshape(depth.shape), expected.astype(kind))
    waits = b"once the range of the whole clip is known" in done.stderr
    assert waits == (RANGE[0] not in how)


KILLED = """
import os, random, signal, sys
after = int(sys.argv.pop(1))
seen = 0
def die(event, arguments):
    global seen
    # What touches a file: writing a frame does not, committing a window and opening a result do.
    if event in ("open", "os.rename", "os.remove", "os.mkdir") and ".spool" in str(arguments[0]):
        seen += 1
        if seen == after:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die)
from dc_rt.cli import main
main()
"""


@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")
def test_a_killed_run_is_resumed_from_what_it_kept_to_the_same_bytes(
    file_run: tuple[bytes, dict[str, bytes]], tmp_path: Path
) -> None:
    """Killed at random accesses to its spool, time and again; the stream on standard output begins anew."""
    stream, expected = file_run
    how = (*FAST, *RANGE, "--save-npz", "--name", "clip", "--pipe-format", "float32", "--save-folder", str(tmp_path))
    command = ["infer", "-", *how, "--outputs", "-,depth.mp4,vis.mp4,input.mp4"]
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    num_killed = 0
    for after in [chance.randint(8, 16), chance.randint(12, 30), chance.randint(20, 60), 10**9]:
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(after), *command], input=stream, capture_output=True, check=False
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        num_killed += done.returncode == -signal.SIGKILL
        if done.returncode == 0:
            break
    assert done.returncode == 0, f"seed {seed}: {done.stderr.decode()}"
    assert num_killed >= 1, f"seed {seed}"
    assert results(tmp_path) == expected, f"seed {seed}"
    depth = np.load(tmp_path / "clip.npz")["depth"]
    np.testing.assert_array_equal(np.frombuffer(done.stdout, "<f4").reshape(depth.shape), depth)
    assert not (tmp_path / ".clip.spool").exists()


@pytest.fixture
def unfinished(frames: NDArray[np.uint8], tmp_path: Path) -> Path:
    """A folder with a run that was left by its reader once all frames had come."""
    command = [sys.executable, "-m", "dc_rt.cli", "infer", "-", *FAST, *RANGE, "--save-folder", str(tmp_path)]
    with subprocess.Popen(
        [*command, "--outputs", "-,npz", "--pipe-format", "float32"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as run:
        assert run.stdin
        assert run.stdout
        assert run.stderr
        run.stdin.write(yuv4mpeg(frames))
        run.stdin.close()
        run.stdout.read(1000)
        run.stdout.close()
        said = run.stderr.read().decode()
    assert run.returncode in (1, 141)
    assert "Traceback" not in said
    sentence = said.splitlines()[-1]
    assert sentence == (
        "The reader of standard output has left before the end; what was done is kept, and the same command resumes it."
    )
    return tmp_path


def test_a_reader_that_leaves_ends_the_run_and_the_same_command_resumes_it(
    unfinished: Path, frames: NDArray[np.uint8]
) -> None:
    assert (unfinished / ".stdin.spool" / "state").is_file()
    assert not (unfinished / "stdin.npz").exists()
    how = (*RANGE, "--outputs", "-,npz", "--pipe-format", "float32", "--save-folder", unfinished)
    done = succeeded(piped(yuv4mpeg(frames), *how))
    assert b"resumed after frame" in done.stderr
    depth = np.load(unfinished / "stdin.npz")["depth"]
    np.testing.assert_array_equal(np.frombuffer(done.stdout, "<f4").reshape(depth.shape), depth)


def test_another_stream_does_not_resume_a_run(unfinished: Path, frames: NDArray[np.uint8]) -> None:
    how = (*RANGE, "--outputs", "npz", "--save-folder", unfinished)
    other = frames.copy()
    other[3] += 1
    done = piped(yuv4mpeg(other), *how)
    assert done.returncode == 1
    assert b"Frame 3 on standard input is another than in the unfinished run" in done.stderr
    done = piped(yuv4mpeg(frames[:, :32]), *how)
    assert b"was begun with another video" in done.stderr
    succeeded(piped(yuv4mpeg(other), *how, "--restart"))


def test_a_stream_has_one_video(frames: NDArray[np.uint8], tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_clip(tmp_path / f"{name}.mp4", frames)
    done = dc_rt("infer", tmp_path / "a.mp4", tmp_path / "b.mp4", *FAST, "--outputs", "-")
    assert_refused(done, "--outputs - is one stream, for one video")


def test_raw_values_go_out_as_float32_alone(frames: NDArray[np.uint8], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pipe_format='yuv4mpeg' holds depth from 0 to 1"):
        Outputs(("-",), values="raw")
    assert Outputs(("-",), values="raw", pipe_format="float32").is_live


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "-x"])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="result_name must be a name without /"):
        Outputs(result_name=name)


def test_a_job_in_another_process_has_no_pipes(tmp_path: Path) -> None:
    for video, outputs in (("-", None), ("clip.mp4", Outputs(("-",)))):
        with pytest.raises(UserError, match="reads and writes files alone"):
            ChildJob(BUNDLED, video, outputs=outputs, save_folder=tmp_path)


def test_a_pipe_into_and_out_of_ffmpeg_gives_the_bits_of_the_file_run(tmp_path: Path) -> None:
    """FFmpeg's own program on both sides: it decodes a clip, and makes a lossless video of the depth."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    clip = real_clip("carphone_pristine.mp4")
    how = (*FAST, *RANGE, "--process-length", "17")
    done = dc_rt("infer", clip, *how, "--outputs", "npz", "--save-folder", tmp_path)
    assert done.returncode == 0, done.stderr
    depth = np.load(tmp_path / "carphone_pristine.npz")["depth"]
    decode = [ffmpeg, "-v", "error", "-i", str(clip), "-f", "yuv4mpegpipe", "-"]
    estimate = [sys.executable, "-m", "dc_rt.cli", "infer", "-", *how, "--outputs", "-", "--pipe-format", "gray16le"]
    raw_grey = ("-f", "rawvideo", "-pix_fmt", "gray16le", "-s", f"{depth.shape[2]}x{depth.shape[1]}")
    encode = [ffmpeg, "-v", "error", "-y", *raw_grey, "-i", "-", "-c:v", "ffv1", str(tmp_path / "depth.mkv")]
    with (
        subprocess.Popen(decode, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as first,
        subprocess.Popen([*estimate, "--save-folder", tmp_path], stdin=first.stdout, stdout=subprocess.PIPE) as second,
        subprocess.Popen(encode, stdin=second.stdout) as third,
    ):
        assert first.stdout
        assert second.stdout
        first.stdout.close()
        second.stdout.close()
        assert third.wait() == 0
    assert second.returncode == 0
    with av.open(str(tmp_path / "depth.mkv")) as container:
        written = np.stack([frame.to_ndarray() for frame in container.decode(video=0)])
    np.testing.assert_array_equal(written, np.round(depth * 65535).astype(np.uint16))


@pytest.mark.parametrize("shots", ["auto", "cuts.csv"])
def test_the_shots_of_a_pipe_are_those_of_the_file(frames: NDArray[np.uint8], tmp_path: Path, shots: str) -> None:
    """With auto the whole pipe is read first; a list is taken as it is, whatever the pipe's length."""
    joined = np.concatenate([frames[:12], 255 - moving_gradient(10, 64, 96, seed=8)])
    Path("cuts.csv").write_text("0\n12\n")
    stream = yuv4mpeg(joined)
    (tmp_path / "stdin.y4m").write_bytes(stream)
    how = (*RANGE, "--shots", shots, "--save-npz", "--save-folder")
    assert dc_rt("infer", tmp_path / "stdin.y4m", *FAST, *how, "file").returncode == 0
    succeeded(piped(stream, *how, "pipe"))
    assert results(Path("pipe")) == results(Path("file"))
    assert len(json.loads(Path("pipe/stdin.json").read_text())["shots"]) == 2


def test_shots_after_the_end_of_a_pipe_are_said(frames: NDArray[np.uint8]) -> None:
    Path("cuts.csv").write_text("0\n5\n900\n")
    how = ("--shots", "cuts.csv", "--outputs", "npz", "--save-folder", "out")
    done = succeeded(piped(yuv4mpeg(frames[:9]), *how))
    assert b"1 of 3 shots begin after the last frame" in done.stdout
    assert len(json.loads(Path("out/stdin.json").read_text())["shots"]) == 2
    cut = succeeded(piped(yuv4mpeg(frames[:9]), *how, "--process-length", "4"))
    assert b"begin after the last frame" not in cut.stdout  # as was asked for


def test_times_that_a_stream_cannot_hold_are_said(tmp_path: Path) -> None:
    clip = write_timed(tmp_path / "uneven.mkv", [0, 40, 120, 160, 300, 340], Fraction(1, 1000))
    how = (*FAST, *RANGE, "--save-folder", str(tmp_path), "--dry-run", "--outputs")
    assert "evenly, since yuv4mpeg has one rate" in dc_rt("infer", clip, *how, "-").stdout
    assert "evenly" not in dc_rt("infer", clip, *how, "npz").stdout


def test_a_dry_run_says_what_the_run_would_refuse(tmp_path: Path) -> None:
    clip = write_timed(tmp_path / "clip.mkv", list(range(4)), Fraction(1, 24))
    other = write_timed(tmp_path / "other.mkv", list(range(4)), Fraction(1, 24))
    folder = ("--save-folder", str(tmp_path / "out"))
    for dry in ((), ("--dry-run",)):
        refused = dc_rt("infer", clip, other, *FAST, *folder, *dry, "--outputs", "-")
        assert_refused(refused, "--outputs - is one stream, for one video; run the 2 one by one")
        wide = dc_rt("infer", clip, *FAST, *folder, *dry, "--outputs", "side-by-side", "--size", "6000x64")
        assert_refused(wide, r"takes no pictures of 18000x64; choose another --size\.$")
    assert not (tmp_path / "out").exists()


def test_depth_of_a_pipe_is_delivered_to_a_stream_but_its_pictures_are_gone(frames: NDArray[np.uint8]) -> None:
    succeeded(piped(yuv4mpeg(frames[:9]), "--keep", "raw", "--outputs", "npz", "--save-folder", "kept"))
    deliver = [sys.executable, "-m", "dc_rt.cli", "deliver", "kept/stdin.raw.zarr.zip", "--save-folder", "out"]
    done = subprocess.run(
        [*deliver, "--outputs", "-", "--pipe-format", "float32", "--name", "again"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    depth = np.load("kept/stdin.npz")["depth"]
    np.testing.assert_array_equal(np.frombuffer(done.stdout, "<f4").reshape(depth.shape), depth)
    assert Path("out/again.json").is_file()
    refused = dc_rt("deliver", "kept/stdin.raw.zarr.zip", "--outputs", "input.mp4", "--save-folder", "out")
    assert_refused(
        refused, "is of frames that came through a pipe and are gone, and they are needed for the output input"
    )
