"""Which engine set runs a video where several could be used: the newest of one model that can, and never another's."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from dc_rt import DepthCrafter, UserError
from dc_rt.engine.discovery import BUNDLED, Choice, Wanted, choose, find_candidates, find_engines, list_engines
from dc_rt.engine.manifest import Manifest, Range
from dc_rt.media import output_size
from media_helpers import moving_gradient, write_clip

FAST = ("--num-denoising-steps", "1", "--window-size", "4", "--overlap", "1")
SMALL = Wanted(64, 128, 4)


def make_set(name, created, width=(128, 128), height=(64, 64), frames=110, **changes):
    """A copy of the bundled set in ./engines, for the sizes given."""
    folder = Path(shutil.copytree(BUNDLED, Path("engines") / name))
    manifest = Manifest.read(folder)
    height, width, frames = (Range(low, low, high) for low, high in (height, width, (1, frames)))
    profile = dataclasses.replace(manifest.profile, name=name, height=height, width=width, frames=frames)
    dataclasses.replace(manifest, profile=profile, created=created, **changes).write(folder)
    return folder


def model(**changes):
    return {"model": dataclasses.replace(Manifest.read(BUNDLED).model, **changes)}


def chosen(wanted, named=None):
    return choose(find_candidates(named), wanted).folder


def refused(wanted, named=None):
    with pytest.raises(UserError) as error:
        chosen(wanted, named)
    sentence = str(error.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


def test_the_newest_set_of_the_model_that_can_run_the_video_is_chosen():
    wide = make_set("wide", "2026-01-01", width=(256, 256))
    older = make_set("older", "2026-02-01")
    newer = make_set("newer", "2026-03-01")
    large = make_set("large", "2026-04-01", width=(512, 512))
    assert chosen(SMALL) == newer
    assert chosen(Wanted(64, 256, 4)) == wide
    assert chosen(Wanted(64, 512, 4)) == large
    assert chosen(Wanted(192, 320, 4)) == BUNDLED
    shutil.rmtree(newer)
    assert chosen(SMALL) == older


def test_the_reason_says_which_set_is_newer_and_why_it_was_not_taken():
    make_set("narrow", "2027-01-01")
    make_set("wide", "2027-01-02", width=(256, 320))
    assert choose(find_candidates(None), Wanted(64, 256, 4)).reason == "the newest complete set in ./engines"
    reason = choose(find_candidates(None), SMALL).reason
    assert reason.startswith("the newest set of the same model that runs the video; engines/wide is newer")
    assert reason.endswith("runs 256x64 to 320x64")
    reason = choose(find_candidates(None), Wanted(192, 320, 4)).reason
    assert reason.startswith("the bundled set of the same model that runs the video; engines/wide is newer")


def test_a_window_that_is_too_long_for_one_set_is_run_by_another():
    make_set("short", "2027-01-02", frames=8)
    long = make_set("long", "2027-01-01", frames=20)
    assert chosen(dataclasses.replace(SMALL, window_size=8)).name == "short"
    assert chosen(dataclasses.replace(SMALL, window_size=20)) == long
    assert chosen(dataclasses.replace(SMALL, window_size=110)) == BUNDLED
    assert (
        "windows of up to 8 frames" in choose(find_candidates(None), dataclasses.replace(SMALL, window_size=9)).reason
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": "0" * 64},
        {"weights": None},
        model(base="other"),
        model(unet="other"),
        model(name="other"),
    ],
    ids=["other weights", "unknown weights", "another base", "another UNet", "another name"],
)
def test_another_models_set_is_never_chosen(changes):
    """Least of all the bundled one: here it could run the video, as could the older set of its model."""
    make_set("of the bundled model", "2027-01-01")
    make_set("newest", "2027-01-02", width=(512, 512), **changes)
    sentence = refused(SMALL)
    assert "profile newest" in sentence
    assert "bundled" not in sentence
    assert "of the bundled model" not in sentence


def test_a_set_of_an_older_version_is_of_its_own_model_alone(tmp_path):
    """It has no hash of its weights."""
    folder = make_set("old", "2027-01-01")
    record = json.loads((folder / "manifest.json").read_text())
    del record["weights"]
    (folder / "manifest.json").write_text(json.dumps(record))
    assert chosen(SMALL) == folder
    refused(Wanted(192, 320, 4))


def test_a_set_that_is_loaded_is_kept_while_it_can_run_the_video():
    older = make_set("older", "2027-01-01", width=(128, 256))
    make_set("newer", "2027-01-02")
    candidates = find_candidates(None)
    first = choose(candidates, Wanted(64, 256, 4))
    assert first.folder == older
    assert choose(candidates, SMALL, loaded=first) == first
    assert choose(candidates, Wanted(192, 320, 4), loaded=first).folder == BUNDLED


def test_a_set_that_is_named_is_never_overruled_and_its_refusal_names_one_that_runs_it(monkeypatch):
    narrow = make_set("narrow", "2027-01-02")
    wide = make_set("wide", "2027-01-01", width=(256, 256))
    stranger = make_set("stranger", "2027-01-03", width=(320, 320), weights="0" * 64)
    assert f"use engines='{wide}', a set of the same model" in refused(Wanted(64, 256, 4), narrow)
    assert f"use engines='{BUNDLED}', a set of the same model" in refused(Wanted(192, 320, 4), narrow)
    assert str(stranger) not in refused(Wanted(64, 320, 4), narrow)
    assert "make engines of a profile" in refused(Wanted(64, 128, 4), stranger)
    monkeypatch.setenv("DC_RT_ENGINES", str(narrow))
    assert "use engines=" in refused(Wanted(64, 256, 4))


def of_a_video(height, width, max_res=1024, window_size=4, overlap=1):
    return Wanted(
        *output_size(height, width, max_res),
        window_size,
        overlap,
        max_res,
        lambda size: output_size(height, width, size),
    )


@pytest.mark.parametrize(
    ("video", "widths", "heights", "max_res"),
    [
        ((1080, 1920), (512, 512), (256, 256), 512),
        ((1080, 1920), (64, 640), (64, 640), 640),
        ((1080, 1920), (1024, 1024), (576, 576), 1024),
        ((480, 640), (512, 512), (256, 256), None),  # another shape
        ((64, 64), (128, 128), (128, 128), None),  # nothing is made larger
        ((100, 100), (64, 64), (64, 64), 64),
    ],
)
def test_the_max_res_that_is_advised_fits(video, widths, heights, max_res):
    folder = make_set("only", "2027-01-01", widths, heights, weights=None)
    for given in (128, 320, 2048):
        wanted = of_a_video(*video, max_res=given)
        if not Manifest.read(folder).profile.misfit(wanted.height, wanted.width):
            continue
        sentence = refused(wanted)
        advised = re.search(r"max_res=(\d+)", sentence)
        assert (int(advised[1]) if advised else None) == max_res, sentence
        if advised:
            assert chosen(of_a_video(*video, max_res=int(advised[1]))) == folder
        else:
            assert "no max_res fits" in sentence


def test_a_window_that_is_advised_fits_and_so_does_its_overlap():
    folder = make_set("only", "2027-01-01", frames=8, weights=None)
    sentence = refused(of_a_video(64, 128, window_size=110, overlap=25))
    assert "windows of up to 8 frames, not 110; try window_size=8 overlap=1." in sentence
    assert chosen(of_a_video(64, 128, window_size=8, overlap=1)) == folder


# On the command line.


def dc_rt(*arguments, **environment):
    command = [sys.executable, "-m", "dc_rt.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def clip(name, height, width):
    return write_clip(Path(name), moving_gradient(3, height, width, seed=0), Fraction(24))


def test_every_video_of_a_batch_is_run_by_a_set_that_can(tmp_path):
    """Small and wide are run by one set each, and what no set runs stops none of the others."""
    make_set("small", "2027-01-02", weights="0" * 64)
    make_set("wide", "2027-01-01", width=(256, 256), weights="0" * 64)
    (Path("engines") / "broken").mkdir()
    (Path("engines") / "broken" / "manifest.json").write_text("{}")
    videos = [clip("a.mp4", 64, 128), clip("b.mp4", 64, 256), clip("c.mp4", 128, 64), clip("d.mp4", 64, 256)]
    done = dc_rt("infer", *videos, *FAST)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    engines = [line.split(":")[0] for line in lines if line.startswith("Engines")]
    assert engines == ["Engines engines/small", "Engines engines/wide"]
    assert lines[2].startswith("  engines/broken is left out: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert "128x64 (height x width)" in done.stderr
    assert sorted(path.name for path in Path("demo_output").glob("*_depth.mp4")) == [
        "a_depth.mp4",
        "b_depth.mp4",
        "d_depth.mp4",
    ]


def test_engines_that_cannot_be_opened_stop_a_batch_with_one_sentence():
    folder = make_set("small", "2027-01-02")
    contents = bytearray((folder / "denoiser.onnx").read_bytes())
    contents[1000] ^= 255
    (folder / "denoiser.onnx").write_bytes(contents)
    done = dc_rt("infer", clip("a.mp4", 64, 128), clip("b.mp4", 64, 128), *FAST)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "denoiser.onnx was changed" in done.stderr
    assert not Path("demo_output").exists()


# Sets that are none.


def damage(kind, folder):
    path = folder / "manifest.json"
    record = json.loads(path.read_text())
    if kind == "created: null":
        path.write_text(json.dumps(record | {"created": None}))
    elif kind == "text for a number":
        path.write_text(json.dumps(record | {"opset": "23"}))
    elif kind == "a list for an object":
        path.write_text(json.dumps(record | {"graphs": []}))
    elif kind == "another version":
        path.write_text(json.dumps(record | {"format": 7}))
    elif kind == "another program's":
        path.write_text(json.dumps({"name": "An app", "icons": []}))
    elif kind == "no UTF-8":
        path.write_bytes(b"\xff\xfe" + path.read_bytes())
    elif kind == "a folder":
        path.unlink()
        path.mkdir()
    elif kind == "a broken link":
        path.unlink()
        path.symlink_to("nowhere")
    elif kind == "incomplete":
        (folder / "denoiser.onnx").unlink()


KINDS = (
    "created: null",
    "text for a number",
    "a list for an object",
    "another version",
    "another program's",
    "no UTF-8",
    "a folder",
    "a broken link",
    "incomplete",
)


def test_sets_that_are_none_are_left_out_and_that_is_said():
    good = make_set("good", "2027-01-01", width=(128, 512), height=(64, 512))
    for kind in KINDS:
        damage(kind, make_set(kind, "2027-01-02"))
    Path("engines/a file").write_text("mine")
    Path("engines/empty").mkdir()
    assert list(list_engines(Path("engines"))) == [good]
    _, skipped = find_engines(Path("engines"))
    assert {folder.name for folder in skipped} == set(KINDS)
    for sentence in skipped.values():
        assert "\n" not in sentence
        assert sentence.endswith(".")
    assert chosen(SMALL) == good
    done = dc_rt("doctor", COLUMNS="500")
    assert done.returncode == 0
    for kind in KINDS:
        (line,) = [line for line in done.stdout.splitlines() if f"engines/{kind}: left out" in line]
        assert line.startswith("--")
    assert any(line.startswith("ok") and "engines/good" in line for line in done.stdout.splitlines())


@pytest.mark.parametrize("kind", KINDS)
def test_a_set_that_is_none_is_refused_by_name_in_one_sentence(kind):
    folder = make_set("set", "2027-01-02", height=(64, 512), width=(64, 512))
    damage(kind, folder)
    with pytest.raises(UserError) as error:
        DepthCrafter.load(folder)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")


def test_where_no_set_is_complete_the_bundled_one_is_used_and_both_is_said():
    damage("created: null", make_set("set", "2027-01-02"))
    candidates = find_candidates(None)
    assert choose(candidates, SMALL) == Choice(BUNDLED, candidates.reason)
    assert "no complete set in ./engines" in candidates.reason
    assert "created" in candidates.skipped[Path("engines/set")]


@pytest.mark.parametrize(
    ("one", "other"),
    [("clip_encoder", "vae_encoder"), ("denoiser", "vae_decoder"), ("vae_encoder", "denoiser")],
)
def test_graphs_under_each_others_names_are_noticed_when_they_are_opened(one, other):
    folder = make_set("set", "2027-01-02")
    manifest = Manifest.read(folder)
    graphs = {**manifest.graphs, one: manifest.graphs[other], other: manifest.graphs[one]}
    dataclasses.replace(manifest, graphs=graphs).write(folder)
    with pytest.raises(UserError, match=r"\.onnx is not the (clip|vae|denoiser)\w* that its manifest calls it.*\.$"):
        DepthCrafter.load(folder)


def test_graphs_of_another_model_are_noticed_when_they_are_opened():
    folder = make_set("set", "2027-01-02", **model(embedding_dim=1024))
    with pytest.raises(UserError, match=r"clip_encoder.onnx is not of this engine set.* 64 where the set's have 1024"):
        DepthCrafter.load(folder)
