"""What users of the original's `run.py` type is answered with what to type here, by the real command."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from dc_rt.cli.app import app
from dc_rt.cli.original import ORIGINAL, mistake
from install_helpers import ROOT

COMMAND = typer.main.get_command(app).commands["infer"]  # type: ignore[attr-defined]  # a group, which `app` always is
TAKES_VALUE = {"--max-res": True, "--save-folder": True, "--save-npz": False, "--verbose": False, "-v": False}


def infer(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dc_rt.cli", "infer", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (["--video-path", "a.mp4"], "`dc-rt infer a.mp4`"),
        (["--video_path=a.mp4,b.mp4"], "`dc-rt infer a.mp4 b.mp4`"),
        (["a.mp4,b.mp4"], "`dc-rt infer a.mp4 b.mp4`"),
        (["a.mp4", "--unet-path", "my/unet"], "`dc-export engines my/unet --out"),
        (["a.mp4", "--pre-train-path", "my/svd"], "`dc-export engines --base my/svd --out"),
        (["a.mp4", "--track-time"], "NAME.json"),
        (["a.mp4", "--max_res", "768"], "type `--max-res 768`"),
        (["a.mp4", "--save_npz", "True"], "type `--save-npz` alone"),
        (["a.mp4", "--save-npz=False"], "leave `--save-npz` out"),
        (["a.mp4", "--cpu-offload", "None"], "type `--cpu-offload none`"),
        (["a.mp4", "--dataset=kitti"], "type `--dataset KITTI`"),
    ],
)
def test_an_option_of_the_original_is_one_sentence_with_its_counterpart(arguments: list[str], fix: str) -> None:
    done = infer(*arguments)
    assert done.returncode == 2
    (sentence,) = done.stderr.strip().splitlines()
    assert fix in sentence
    assert sentence.endswith(".")
    assert done.stdout == ""
    assert not Path("demo_output").exists()


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (["-video_path", "a.mp4"], "`dc-rt infer a.mp4`"),
        (["--video-path", "my clip.mp4"], "`dc-rt infer 'my clip.mp4'`"),
        (["--video-path"], "`dc-rt infer a.mp4 b.mp4`"),
        (["a.mp4", "--unet_path", "--max-res", "768"], "engines DIR_OR_ID "),
        (["-max_res=768"], "type `--max-res 768`"),
        (["--max_res"], "type `--max-res`"),
        (["--save_npz"], "type `--save-npz`"),
        (["--save-npz", "True"], "type `--save-npz` alone"),
        (["--nosave_npz"], "leave it out"),
        (["--notrack-time"], "leave it out"),
    ],
)
def test_all_that_the_original_takes_is_known(words: list[str], fix: str) -> None:
    assert fix in mistake(words, TAKES_VALUE)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["a.mp4", "--max-res", "768", "--save-npz", "-v", "b.mp4"],
        ["--save-folder", "--video-path", "a.mp4"],  # a strange folder, but one
        ["--save-folder=a,b", "a.mp4"],
        ["--", "--video-path", "a.mp4,b.mp4"],
        ["shot 1, take 2.mp4"],
        ["a,.mp4"],
        ["--nonsense", "--max_resolution", "-x", "-vx"],
        ["x" * 10_000 + ",y"],
    ],
)
def test_what_is_no_mistake_of_that_kind_is_the_parsers(words: list[str]) -> None:
    assert mistake(words, TAKES_VALUE) == ""


def test_files_of_such_names_are_videos() -> None:
    for name in ("a.mp4,b.mp4", "True"):
        Path(name).touch()
    assert mistake(["a.mp4,b.mp4", "--save-npz", "True"], TAKES_VALUE) == ""
    Path("a").touch()
    assert "`dc-rt infer a b`" in mistake(["a,b"], TAKES_VALUE)


def test_an_unknown_option_is_said_as_ever() -> None:
    done = infer("a.mp4", "--nonsense")
    assert done.returncode == 2
    assert "No such option" in done.stderr
    assert "--nonsense" in done.stderr


def test_every_option_of_the_original_is_one_here_or_has_its_sentence() -> None:
    flags = {flag for option in COMMAND.params for flag in option.opts}
    for name, row in ORIGINAL.items():
        assert bool(row.instead) != (f"--{name.replace('_', '-')}" in flags), name


def test_where_the_default_is_not_the_originals_it_is_said() -> None:
    ours = {flag: option.default for option in COMMAND.params for flag in option.opts}
    for name, row in ORIGINAL.items():
        if not row.instead:
            default = ours[f"--{name.replace('_', '-')}"]
            theirs = type(default)(float(row.default)) if type(default) in (int, float) else row.default
            if theirs not in (default, str(default), f"./{default}"):
                assert f"the default is `{default}`" in row.differs, name


def test_commands_of_the_page_are_ones() -> None:
    """Parsed alone: their videos are nobody's."""
    page = (ROOT / "docs" / "from-the-original.md").read_text(encoding="utf-8")
    lines = re.findall(r"^dc-rt infer (.*?)(?: +#.*)?$", page, re.MULTILINE)
    assert len(lines) >= 4
    for line in lines:
        with COMMAND.make_context("infer", line.split()) as context:
            assert context.params["videos"]
