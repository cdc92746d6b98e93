"""What a run may overwrite, and what of it is said before any work."""

import json
import os
import re
import shutil
import sys
import unicodedata
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from command_helpers import assert_refused, contents, dc_rt, without_override
from dc_rt import UserError
from dc_rt.job.spool import Spool
from dc_rt.job.targets import Targets, check_batch
from dc_rt.outputs import all_outputs
from job_helpers import Fault, choose, run_job
from media_helpers import moving_gradient, write_clip, write_image, write_images

FAST = ("--num-denoising-steps", "1", "--window-size", "16", "--overlap", "5")
EVERYTHING = choose(*all_outputs(), steps=1, window_size=16, overlap=5)
OF_THE_FIRST_RELEASE = choose("npz", "exr", "png", steps=1, window_size=16, overlap=5)
PLAIN = choose(steps=1, window_size=16, overlap=5)


def small_clip(path, num_frames=2, seed=1):
    path.parent.mkdir(exist_ok=True)
    return write_clip(path, moving_gradient(num_frames, 64, 64, seed=seed), Fraction(24))


def named_directly():
    return "side/p_depth.mp4"


def named_absolutely():
    return Path("side/p_depth.mp4").resolve()


def named_in_a_roundabout_way():
    return "side/../side/p_depth.mp4"


def named_through_a_linked_folder():
    Path("link").symlink_to("side")
    return "link/p_depth.mp4"


def named_through_a_link():
    Path("other.mp4").symlink_to("side/p_depth.mp4")
    return "other.mp4"


def named_through_a_hard_link():
    os.link("side/p_depth.mp4", "other.mp4")
    return "other.mp4"


def itself_a_link():
    Path("side/p_depth.mp4").rename("real.mp4")
    Path("side/p_depth.mp4").symlink_to("../real.mp4")
    return "real.mp4"


def not_there_yet():
    Path("side/p_depth.mp4").unlink()
    return "side/p_depth.mp4"


def an_image_among_the_frames():
    write_images(Path("side/p"), moving_gradient(2, 64, 64), "frame_{:04d}.png")
    return "side/p/frame_0001.png"


def a_folder_with_a_link_to_a_frame():
    write_images(Path("side/p"), moving_gradient(1, 64, 64), "frame_{:04d}.png")
    Path("album").mkdir()
    Path("album/first.png").symlink_to("../side/p/frame_0000.png")
    return "album"


def a_folder_where_a_file_goes():
    Path("side/p_depth.mp4").unlink()
    write_images(Path("side/p_depth.mp4"), moving_gradient(2, 64, 64))
    return "side/p_depth.mp4"


@pytest.mark.parametrize(
    "other",
    [
        named_directly,
        named_absolutely,
        named_in_a_roundabout_way,
        named_through_a_linked_folder,
        named_through_a_link,
        named_through_a_hard_link,
        itself_a_link,
        not_there_yet,
        an_image_among_the_frames,
        a_folder_with_a_link_to_a_frame,
        a_folder_where_a_file_goes,
    ],
)
def test_no_result_is_a_video_of_the_batch(other):
    small_clip(Path("side/p.mp4"))
    small_clip(Path("side/p_depth.mp4"), seed=2)
    batch = [Targets.of(Path(video), Path("side"), EVERYTHING.outputs) for video in ("side/p.mp4", other())]
    with pytest.raises(UserError, match=r"is to be read, and would be overwritten by the results of side/p\.mp4"):
        check_batch(batch)


def test_a_batch_that_would_overwrite_its_own_videos_is_refused_before_any_work():
    small_clip(Path("side/p.mp4"))
    small_clip(Path("side/p_depth.mp4"), seed=2)
    before = contents(Path("side"))
    for more in ((), ("--overwrite",)):
        done = dc_rt("infer", "side/p.mp4", "side/p_depth.mp4", *FAST, "--save-folder", "side", *more)
        assert_refused(done, r"side/p_depth\.mp4 is to be read, and would be overwritten by the results of side/p\.mp4")
        assert not done.stdout  # not even the engines were loaded
        assert contents(Path("side")) == before


def test_a_video_without_a_suffix_is_not_taken_for_the_folder_of_its_frames():
    small_clip(Path("side/p.mp4")).rename("side/p")
    with pytest.raises(UserError, match="side/p is to be read"):
        check_batch([Targets.of(Path("side/p"), Path("side"), EVERYTHING.outputs)])
    check_batch([Targets.of(Path("side/p"), Path("side"), PLAIN.outputs)])


def test_results_are_not_mixed_with_images_of_any_video_of_the_batch():
    write_images(Path("shots"), moving_gradient(2, 64, 64))
    small_clip(Path("side/p.mp4"))
    Path("side/p").symlink_to("../shots")
    for folder, options in (("shots", PLAIN.outputs), ("side", EVERYTHING.outputs)):
        batch = [Targets.of(Path(video), Path(folder), options) for video in ("side/p.mp4", "shots")]
        with pytest.raises(UserError, match="The images of shots would be mixed with the results"):
            check_batch(batch)
    # Beside or below them is no harm: ./demo_output is below where the images may be.
    check_batch([Targets.of(Path("shots"), Path("shots/out"), EVERYTHING.outputs)])
    check_batch([Targets.of(Path("shots"), Path(), PLAIN.outputs)])


def test_results_of_two_videos_never_have_one_name():
    clip = Path("p.mp4")
    for other in ("p_depth.mp4.mov", "p.npz.mov", "p.json.mov", ".p.spool.mov"):
        with pytest.raises(UserError, match=f"would both write out/{re.escape(other[:-4])}"):
            check_batch([Targets.of(video, Path("out"), EVERYTHING.outputs) for video in (clip, Path(other))])
        check_batch([Targets.of(video, Path("out"), PLAIN.outputs) for video in (clip, Path(other))])
    with pytest.raises(UserError, match="More than one video is called p"):
        check_batch([Targets.of(Path(video), Path("out"), PLAIN.outputs) for video in ("a/p.mp4", "b/p.mov")])


def test_names_that_differ_are_one_where_the_file_system_says_so():
    names = ["caf\u00e9", "CAF\u00c9", unicodedata.normalize("NFD", "caf\u00e9")]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        Path(names[first]).touch()
        one = Path(names[second]).exists()
        Path(names[first]).unlink()
        batch = [Targets.of(Path(f"{i}/{names[i]}.mp4"), Path(), PLAIN.outputs) for i in (first, second)]
        if one:
            with pytest.raises(UserError, match="would both write"):
                check_batch(batch)
        else:
            check_batch(batch)
    assert not list(Path().iterdir())


OWN = ["p.json", "p_depth.mp4", "p_vis.mp4", "p_input.mp4", "p.npz", "p/frame_0000.exr", "p/frame_0017.png", "p"]
OWN += ["p_left.mp4", "p_right.mp4", "p_iw3/iw3_export.yml", "p_iw3/rgb/frame_00000003.png", "p_iw3/depth", "p_iw3"]


@pytest.mark.parametrize("name", OWN)
def test_a_file_of_the_users_own_is_not_replaced_but_with_overwrite(name):
    targets = Targets.of(Path("p.mp4"), Path("out"), replace(EVERYTHING.outputs, stereo="left+right"))
    own = Path("out", name)
    own.parent.mkdir(parents=True)
    own.write_text('{"mine": 1}')
    with pytest.raises(UserError, match=rf"{own} was not written by dc-rt; .*save_folder.*overwrite=True"):
        targets.check()
    targets.check(overwrite=True)
    own.unlink()
    own.symlink_to("nowhere")  # a link is somebody's too
    with pytest.raises(UserError, match="was not written by dc-rt"):
        targets.check()
    own.unlink()
    targets.check()


def test_files_that_no_result_replaces_are_no_matter():
    mine = ("p.mp4", "p.txt", "q.json", "p/notes.txt", "p/frame_of_mine.png", "p/frame_1.png", "p_left.mp4")
    for name in (*mine, "p_iw3/notes.txt", "p_iw3/rgb/mine.png", "p_iw3/other/frame_00000000.png"):
        Path("out", name).parent.mkdir(parents=True, exist_ok=True)
        Path("out", name).touch()
    Targets.of(Path("p.mp4"), Path("out"), EVERYTHING.outputs).check()


def test_a_folder_is_never_replaced():
    Path("out/p_vis.mp4").mkdir(parents=True)
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"out/p_vis\.mp4 is a folder where a file is to be written; move it away"):
            Targets.of(Path("p.mp4"), Path("out"), PLAIN.outputs).check(overwrite)


def test_the_other_videos_of_a_batch_are_run_and_overwrite_replaces():
    clips = [small_clip(Path("in/p.mp4")), small_clip(Path("in/q.mp4"))]
    Path("out").mkdir()
    Path("out/p.json").write_text('{"mine": 1}')
    done = dc_rt("infer", *clips, *FAST, "--save-folder", "out")
    assert done.returncode == 1
    assert done.stderr.startswith("out/p.json was not written by dc-rt")
    assert sorted(path.name for path in Path("out").iterdir()) == [
        *("p.json", "q.json", "q_depth.mp4", "q_input.mp4", "q_vis.mp4")
    ]
    assert Path("out/p.json").read_text() == '{"mine": 1}'
    done = dc_rt("infer", clips[0], *FAST, "--save-folder", "out", "--overwrite")
    assert done.returncode == 0, done.stderr
    assert "model" in json.loads(Path("out/p.json").read_text())
    done = dc_rt("infer", *clips, *FAST, "--save-folder", "out")
    assert done.returncode == 0, done.stderr


def test_a_folder_has_the_frames_of_the_last_run_and_what_is_the_users(bundled):
    options = choose("iw3", steps=1, window_size=16, overlap=5)
    run_job(bundled, small_clip(Path("p.mp4"), 5), Path("out"), options)
    Path("out/p_iw3/notes.txt").write_text("mine")
    run_job(bundled, small_clip(Path("p.mp4"), 3), Path("out"), options)
    for kind in ("rgb", "depth"):
        names = sorted(path.name for path in Path("out/p_iw3", kind).iterdir())
        assert names == [f"frame_{number:08d}.png" for number in range(3)]
    assert Path("out/p_iw3/notes.txt").read_text() == "mine"
    files = json.loads(Path("out/p.json").read_text())["files"]
    assert files["p_iw3/rgb/frame_00000002.png"] == Path("out/p_iw3/rgb/frame_00000002.png").stat().st_size
    assert "p_iw3/notes.txt" not in files
    # A run that does not write it leaves it, and it is still known for ours.
    run_job(bundled, small_clip(Path("p.mp4"), 3), Path("out"), PLAIN)
    run_job(bundled, small_clip(Path("p.mp4"), 4), Path("out"), options)
    Path("out/p_iw3/depth/frame_00000001.png").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"out/p_iw3/depth/frame_00000001\.png was not written by dc-rt"):
        run_job(bundled, Path("p.mp4"), Path("out"), options)
    run_job(bundled, Path("p.mp4"), Path("out"), options, overwrite=True)
    assert Path("out/p_iw3/depth/frame_00000001.png").read_bytes()[:4] == b"\x89PNG"


@pytest.fixture
def job(bundled):
    """Runs the same clip into ./out."""
    clip = small_clip(Path("p.mp4"), 3)

    def run(options=PLAIN, **how):
        return run_job(bundled, clip, Path("out"), options, **how)

    return run


def as_of_the_first_release(record):
    """What its record had: no list of files, and an option an output."""
    told = json.loads(record.read_text())
    written = told["options"].pop("outputs")
    told["options"] |= {f"save_{name}": name in written for name in ("npz", "exr", "png")}
    keys = ("model", "engines", "source", "result", "options", "timings", "versions", "machine", "created")
    record.write_text(json.dumps({key: told[key] for key in keys}))


def test_the_record_lists_what_was_written(job):
    job(EVERYTHING)
    files = json.loads(Path("out/p.json").read_text())["files"]
    written = {path for path in Path("out").rglob("*") if path.is_file() and path.suffix != ".json"}
    assert files == {path.relative_to("out").as_posix(): path.stat().st_size for path in written}
    assert {"p_depth.mp4", "p.npz", "p/frame_0002.exr", "p/frame_0002.png"} <= files.keys()


def test_results_of_the_first_release_are_replaced_without_a_word(job):
    job(OF_THE_FIRST_RELEASE)
    as_of_the_first_release(Path("out/p.json"))
    job(OF_THE_FIRST_RELEASE)
    job(PLAIN)
    as_of_the_first_release(Path("out/p.json"))
    # Its options say that it wrote no arrays, so those that are there are somebody's.
    with pytest.raises(UserError, match=r"out/p\.npz \(and 6 more\) was not written by dc-rt"):
        job(OF_THE_FIRST_RELEASE)


def test_results_of_earlier_runs_stay_known_when_a_later_run_does_not_write_them(job):
    job(EVERYTHING)
    job(PLAIN)
    job(EVERYTHING)
    job(PLAIN)
    Path("out/p.npz").unlink()  # what is missing is no matter
    Path("out/p/frame_0001.exr").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"out/p/frame_0001\.exr was not written by dc-rt"):
        job(EVERYTHING)
    assert Path("out/p/frame_0001.exr").read_bytes() == b"mine"
    job(EVERYTHING, overwrite=True)
    job(EVERYTHING)


def test_a_file_put_in_the_place_of_a_result_is_noticed(job):
    job()
    Path("out/p_vis.mp4").write_bytes(b"graded by hand")
    with pytest.raises(UserError, match=r"out/p_vis\.mp4 was not written by dc-rt"):
        job()
    assert Path("out/p_vis.mp4").read_bytes() == b"graded by hand"


def test_a_file_that_appears_during_the_run_stays_and_the_work_is_kept(job):
    job(EVERYTHING)
    expected = contents(Path("out"), without=".json")
    shutil.rmtree("out")

    def appear(stage, frames, seconds):
        if stage == "vae_decoder":
            Path("out/p_vis.mp4").write_bytes(b"mine")

    with pytest.raises(UserError, match=r"out/p_vis\.mp4 was not written by dc-rt; move it away.* resumes it"):
        job(EVERYTHING, progress=appear)
    assert contents(Path("out"), below=".p.spool") == {"p_vis.mp4": b"mine"}
    Path("out/p_vis.mp4").unlink()
    stages = []
    job(EVERYTHING, progress=lambda stage, *_: stages.append(stage))
    assert "denoiser" not in stages
    assert contents(Path("out"), without=".json") == expected


def run_without_deleting_the_spool(job, monkeypatch, *arguments):
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "delete", lambda spool: None)
        job(*arguments)


@pytest.mark.parametrize("release", ["this", "first"])
def test_a_run_killed_while_its_results_were_moved_goes_on(job, release, monkeypatch):
    """On disk as a kill leaves it then: some results in place, the rest and the record still in the spool."""
    options = EVERYTHING if release == "this" else OF_THE_FIRST_RELEASE
    run_without_deleting_the_spool(job, monkeypatch, options)
    expected = contents(Path("out"), without=".json", below=".p.spool")
    staging = Path("out/.p.spool/results")
    folder = ["p_iw3/rgb/frame_00000001.png", "p_iw3/iw3_export.yml"] if release == "this" else []
    for name in ("p_vis.mp4", "p/frame_0002.png", *folder, "p.json"):
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        Path("out", name).replace(staging / name)
    if release == "first":
        as_of_the_first_release(staging / "p.json")

    def fail(stage, frames, seconds):
        if stage == "write":
            raise Fault

    for _ in range(2):  # killed again, before there is a record anew
        with pytest.raises(Fault):
            job(options, progress=fail)
        assert not (staging / "p.json").exists()
    with pytest.raises(Fault):  # and while all is done again
        job(options, progress=fail, restart=True)
    job(options)
    assert contents(Path("out"), without=".json") == expected


def test_a_result_next_to_an_unfinished_run_is_still_the_users_if_it_is(job, monkeypatch):
    run_without_deleting_the_spool(job, monkeypatch)
    Path("out/p.json").replace("out/.p.spool/results/p.json")
    Path("out/p_depth.mp4").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"out/p_depth\.mp4 was not written by dc-rt"):
        job()


@pytest.mark.parametrize(
    "record", ["", "[1]", '{"model": {}}', '{"files": {"p_depth.mp4": 4}}', "[" * 100_000, b"\xff"]
)
def test_what_only_looks_like_a_record_is_the_users(record):
    Path("p.json").write_bytes(record if isinstance(record, bytes) else record.encode())
    with pytest.raises(UserError, match=r"p\.json was not written by dc-rt"):
        Targets.of(Path("in/p.mp4"), Path(), PLAIN.outputs).check()


@pytest.mark.skipif(sys.platform == "win32", reason="names are counted in bytes on other systems alone")
@pytest.mark.parametrize("letter", ["a", "\u00e9", "\u6df1"])
def test_names_too_long_for_the_file_system_are_refused_before_any_work(letter):
    limit = os.pathconf(".", "PC_NAME_MAX")
    size = len(letter.encode())
    fits = "b" * ((limit - len("_depth.mp4")) % size) + letter * ((limit - len("_depth.mp4")) // size)
    Targets.of(Path(f"{fits}.mp4"), Path("not/there/yet"), OF_THE_FIRST_RELEASE.outputs).check()
    for name in (f"{fits}b.mp4", f"{fits}bbbb.mp4"):
        with pytest.raises(UserError, match=rf"names of up to {limit + len(name) - len(fits) - 4} bytes"):
            Targets.of(Path(name), Path("not/there/yet"), PLAIN.outputs).check()


@pytest.mark.skipif(sys.platform == "win32", reason="names are counted in bytes on other systems alone")
def test_a_name_of_the_greatest_length_is_run_and_a_longer_one_does_not_stop_it():
    limit = os.pathconf(".", "PC_NAME_MAX")
    fits = "\u00e9" * 50 + "b" * (limit - 100 - len("_depth.mp4"))
    clips = [small_clip(Path("short.mp4")).rename(f"{name}.mp4") for name in (f"{fits}b", fits)]
    done = dc_rt("infer", *clips, *FAST, "--save-png")
    assert done.returncode == 1
    assert "1 more than the file system of . takes; give the video a shorter name." in done.stderr
    assert sorted(path.name for path in Path("demo_output").iterdir()) == sorted(
        [fits, f"{fits}.json", f"{fits}_depth.mp4", f"{fits}_input.mp4", f"{fits}_vis.mp4"]
    )


@pytest.mark.skipif(sys.platform == "win32", reason="paths have no such limit on Windows")
def test_paths_too_long_for_the_system_are_refused():
    deep = Path(*["d" * 200] * 21)
    with pytest.raises(UserError, match="longer than this system takes; give a shorter save_folder"):
        Targets.of(Path("p.mp4"), deep, PLAIN.outputs).check()
    with pytest.raises(UserError, match="longer than this system takes; give a shorter save_folder"):
        Targets.of(Path("p.mp4"), Path("d" * 300), PLAIN.outputs).check()


@pytest.mark.parametrize("what", ["video", "file", "images", "save folder", "its parent", "read only", "frames"])
def test_a_folder_that_cannot_be_read_is_one_sentence_and_the_other_videos_are_run(what):
    clip = small_clip(Path("in/p.mp4"))
    locked = Path("locked")
    locked.mkdir()
    small_clip(locked / "q.mp4")
    write_images(locked / "r", moving_gradient(1, 64, 64))
    (locked / "p").mkdir()
    arguments, bad = {
        "video": ([clip, "locked/q.mp4"], "locked/q.mp4"),
        "file": ([clip, "locked/q.mp4"], "locked/q.mp4"),
        "images": ([clip, "locked/r"], "locked/r"),
        "save folder": ([clip, "--save-folder", "locked"], "locked"),
        "its parent": ([clip, "--save-folder", "locked/out"], "locked/out"),
        "read only": ([clip, "--save-folder", "locked"], "locked"),
        "frames": ([clip, "--save-folder", "locked", "--save-png"], "locked/p"),
    }[what]
    closed = {"file": locked / "q.mp4", "frames": locked / "p"}.get(what, locked)
    closed.chmod(0o555 if what == "read only" else 0)
    done = dc_rt("infer", *arguments, *FAST, **without_override())
    closed.chmod(0o755)
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert bad in sentence
    assert "Permission denied" in sentence
    assert sentence.endswith(".")
    assert Path("demo_output/p.json").exists() == (what in ("video", "file", "images"))


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the file system takes names of text alone")
def test_names_that_are_no_text_are_run_and_recorded():
    name = os.fsdecode(b"Jos\xe9")
    clip = small_clip(Path("p.mp4")).rename(f"{name}.mp4")
    for save_exr in (False, True):
        done = dc_rt("infer", clip, *FAST, "--save-png", *(["--save-exr"] if save_exr else []))
        if save_exr:
            assert_refused(done, r"EXR files cannot be written to demo_output/Jos\\udce9.*rename the video")
    record = Path(f"demo_output/{name}.json").read_bytes().decode("utf-8")
    told = json.loads(record)
    assert told["source"]["path"] == "Jos\\xe9.mp4"
    assert "Jos\\xe9/frame_0001.png" in told["files"]
    assert not any(0xD800 <= ord(letter) < 0xE000 for letter in str(told))
    done = dc_rt("infer", clip, *FAST, "--save-png")  # its own are known again
    assert done.returncode == 0, done.stderr


def test_one_image_may_be_a_video_of_its_own(bundled):
    """The names of its results are its own alone, though it lies where another's frames might go."""
    write_image(Path("p.png"), np.asarray(moving_gradient(1, 64, 64)[0]), "png", "rgb24")
    check_batch([Targets.of(Path("p.png"), Path(), EVERYTHING.outputs)])
