"""Results as point clouds and meshes: the files are read by hand here, and by other programs in bench/soak/scene.py."""

import json
import math
import struct
from fractions import Fraction
from importlib.util import find_spec
from io import BytesIO
from itertools import islice

import av
import numpy as np
import pytest

from command_helpers import assert_refused, contents, dc_rt
from dc_rt.errors import UserError
from dc_rt.geometry import Lens
from dc_rt.job.targets import result_name
from dc_rt.stored import open_stored
from dc_rt.view.frames import frames_of
from dc_rt.view.glb import triangles, write_glb
from dc_rt.view.ply import write_ply
from dc_rt.view.remote import Thinned
from media_helpers import moving_gradient, write_clip
from raw_helpers import run_kept

LENS = Lens(1.5, 2.0, 30.0)


@pytest.fixture
def record(kept):
    return kept.folder / f"{result_name(kept.raw)}.json"


@pytest.fixture
def stored(record):
    return open_stored(record)


def read_ply(path):
    """Comments and points of a file as its own header describes it."""
    head, _, body = path.read_bytes().partition(b"end_header\n")
    lines = head.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    types = {"float": "<f4", "uchar": "u1"}
    fields = [(line.split()[2], types[line.split()[1]]) for line in lines if line.startswith("property ")]
    (count,) = (int(line.split()[2]) for line in lines if line.startswith("element vertex "))
    points = np.frombuffer(body, fields)
    assert len(points) == count
    return [line.removeprefix("comment ") for line in lines if line.startswith("comment ")], points


def read_glb(path):
    """The description and the buffer of a file, whose lengths must be right."""
    contents = path.read_bytes()
    magic, version, length = struct.unpack("<4sII", contents[:12])
    assert (magic, version, length) == (b"glTF", 2, len(contents))
    size, kind = struct.unpack("<I4s", contents[12:20])
    description, rest = json.loads(contents[20 : 20 + size]), contents[20 + size :]
    rest_size, rest_kind = struct.unpack("<I4s", rest[:8])
    assert (kind, rest_kind, rest_size) == (b"JSON", b"BIN\0", len(rest) - 8)
    assert size % 4 == rest_size % 4 == 0
    return description, rest[8:]


def accessor(description, buffer, number):
    """Its values, [N,3], [N,2] or [N]."""
    which = description["accessors"][number]
    view = description["bufferViews"][which["bufferView"]]
    dtype, columns = {5126: "<f4", 5125: "<u4"}[which["componentType"]], {"VEC3": 3, "VEC2": 2, "SCALAR": 1}
    values = np.frombuffer(buffer[view["byteOffset"] :][: view["byteLength"]], dtype)
    return values.reshape(which["count"], columns[which["type"]]).squeeze()


# Point clouds


def test_a_point_cloud_has_every_pixel_where_the_lens_puts_it(record, stored, tmp_path):
    done = dc_rt("view", record, "--ply", tmp_path / "a b", "--first", 1, "--last", 5, "--every", 2,
                 "--focal", 1.5, "--near", 2, "--far", 30)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(contents(tmp_path / "a b")) == [f"frame_000{number}.ply" for number in (1, 3, 5)]
    for number, depth, image in frames_of(stored, range(1, 6, 2)):
        comments, points = read_ply(tmp_path / "a b" / f"frame_000{number}.ply")
        where = np.stack([points[axis] for axis in "xyz"], axis=-1)
        assert np.array_equal(where, LENS.points(depth, float(stored.pixel_aspect)).reshape(-1, 3))
        colours = np.stack([points[name] for name in ("red", "green", "blue")], axis=-1)
        assert np.array_equal(colours, image.reshape(-1, 3))
        assert comments[0] == f"DepthCrafter-RT: frame {number} at {stored.times[number]:.6f} s"
        assert "focal 1.5 widths of the picture, near 2, far 30" in comments


def test_point_clouds_replace_those_of_an_earlier_call_and_nothing_else(stored, tmp_path):
    write_ply(stored, tmp_path, LENS, range(4))
    (tmp_path / "notes.txt").write_text("mine")
    write_ply(stored, tmp_path, Lens(), range(0, 4, 2))
    assert sorted(contents(tmp_path)) == ["frame_0000.ply", "frame_0002.ply", "notes.txt"]
    assert "focal 1 widths of the picture, near 1, far 10" in read_ply(tmp_path / "frame_0002.ply")[0]


def test_a_point_cloud_of_somebody_else_is_left_and_nothing_is_written(record, tmp_path):
    (tmp_path / "frame_0007.ply").write_bytes(b"ply\nformat ascii 1.0\ncomment by hand\nend_header\n")
    before = contents(tmp_path)
    assert_refused(dc_rt("view", record, "--ply", tmp_path), r"frame_0007\.ply was not written by dc-rt view; .*--ply")
    assert contents(tmp_path) == before


def test_a_folder_that_cannot_be_made_is_said(stored, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file cannot be written \(Not a directory\)"):
        write_ply(stored, tmp_path / "file", LENS, range(1))
    with pytest.raises(UserError, match=r"x\.glb cannot be written \(Not a directory\)"):
        write_glb(stored, tmp_path / "file" / "x.glb", LENS, 0)


# Meshes


def test_a_mesh_has_the_points_the_picture_and_the_camera_of_its_frame(record, stored, tmp_path):
    path = tmp_path / "frame.glb"
    done = dc_rt("view", record, "--glb", path, "--first", 3, "--focal", 1.5, "--near", 2, "--far", 30)
    assert done.returncode == 0, done.stderr
    ((_, depth, image),) = frames_of(stored, range(3, 4))
    description, buffer = read_glb(path)
    (primitive,) = description["meshes"][0]["primitives"]
    points = accessor(description, buffer, primitive["attributes"]["POSITION"])
    assert np.array_equal(points, LENS.points(depth, float(stored.pixel_aspect)).reshape(-1, 3))
    assert description["accessors"][primitive["attributes"]["POSITION"]]["max"] == points.max(axis=0).tolist()
    faces = accessor(description, buffer, primitive["indices"]).reshape(-1, 3)
    assert np.array_equal(faces, triangles(depth))

    view = description["bufferViews"][description["images"][0]["bufferView"]]
    with av.open(BytesIO(buffer[view["byteOffset"] :][: view["byteLength"]]), "r") as picture:
        (texture,) = (frame.to_ndarray(format="rgb24") for frame in picture.decode(video=0))
    assert np.array_equal(texture, image)
    height, width = depth.shape
    across, down = accessor(description, buffer, primitive["attributes"]["TEXCOORD_0"]).T
    assert np.allclose(across * width - 0.5, np.tile(np.arange(width), height), atol=1e-4)
    assert np.allclose(down * height - 0.5, np.repeat(np.arange(height), width), atol=1e-4)

    # The corners of the picture are at the corners of what the camera sees.
    camera = description["cameras"][0]["perspective"]
    top = math.tan(camera["yfov"] / 2)
    x, y, z = points[0]
    assert y / -z == pytest.approx(top * (1 - 1 / height), rel=1e-5)
    assert x / -z == pytest.approx(-top * camera["aspectRatio"] * (1 - 1 / width), rel=1e-5)
    assert description["extras"]["frame"] == 3


def test_a_mesh_of_pixels_that_are_not_square_has_the_shape_of_the_scene(bundled, tmp_path):
    clip = write_clip(tmp_path / "wide.mp4", moving_gradient(4, 64, 192), Fraction(24))
    stored = open_stored(run_kept(bundled, clip, tmp_path / "out", max_res=128).folder / "wide.json")
    write_glb(stored, tmp_path / "wide.glb", Lens(), 0)
    description, _ = read_glb(tmp_path / "wide.glb")
    assert stored.pixel_aspect != 1
    assert description["cameras"][0]["perspective"]["aspectRatio"] == pytest.approx(3)


def test_a_plane_is_whole_and_an_edge_is_open():
    rows = np.linspace(0, 1, 32, dtype=np.float32)[:, None]
    plane = np.broadcast_to(rows, (32, 48))
    assert len(triangles(plane)) == 2 * 31 * 47
    edge = np.zeros((32, 48), np.float32)
    edge[:, 20:] = 0.5
    faces = triangles(edge)
    assert len(faces) == 2 * 31 * 46
    assert (np.ptp(edge.ravel()[faces], axis=1) == 0).all()


def test_triangles_face_the_camera():
    depth = np.random.default_rng(0).uniform(0.4, 0.45, (9, 12)).astype(np.float32)
    points = Lens().points(depth).reshape(-1, 3)
    first, second, third = points[triangles(depth)].swapaxes(0, 1)
    outwards = np.cross(second - first, third - first)
    assert (np.einsum("nd,nd->n", outwards, first) < 0).all()


def test_a_mesh_replaces_an_earlier_one_and_no_other_file(stored, tmp_path):
    path = tmp_path / "frame.glb"
    write_glb(stored, path, LENS, 0)
    write_glb(stored, path, LENS, 2)
    assert read_glb(path)[0]["extras"]["frame"] == 2
    path.write_bytes(b"glTF, but of somebody else")
    with pytest.raises(UserError, match=r"frame\.glb was not written by dc-rt view"):
        write_glb(stored, path, LENS, 0)
    assert path.read_bytes() == b"glTF, but of somebody else"
    with pytest.raises(UserError, match=r"is binary glTF, and not \.gltf; give glb='.*frame\.glb'"):
        write_glb(stored, path.with_suffix(".gltf"), LENS, 0)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"frame\.glb was not written by dc-rt view"):
        write_glb(stored, path, LENS, 0)


# Viewing from another machine


def test_without_viser_one_sentence_says_what_to_install(record):
    if find_spec("viser"):
        pytest.skip("viser is installed")
    assert_refused(dc_rt("view", record, "--viser"), r"viser, which is not installed; run `.*\[viser\].*`")


def test_frames_that_were_read_are_there_in_any_order(stored):
    numbers = range(1, stored.num_frames, 2)
    with Thinned(stored, numbers, 3) as thinned:
        thinned.wait(len(numbers))
        for index in reversed(range(len(numbers))):
            depth, image = thinned.get(index)
            expected = next(islice(stored.depth(), numbers[index], None))[::3, ::3]
            assert np.abs(depth - expected).max() <= 0.5 / 65535 + 1e-7
            assert np.array_equal(image, next(islice(stored.images(), numbers[index], None))[::3, ::3])


def test_what_cannot_be_read_is_said_to_who_waits(bundled, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", moving_gradient(4, 64, 64), Fraction(24))
    folder = run_kept(bundled, clip, tmp_path / "out").folder
    stored = open_stored(folder / "clip.json")
    (folder / "clip_input.mp4").unlink()
    clip.unlink()
    with Thinned(stored, range(4), 1) as thinned, pytest.raises(UserError, match=r"clip\.mp4"):
        thinned.wait(1)
