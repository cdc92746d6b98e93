"""Outputs that take no depth are written while the model runs, and the video is read once where that does."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dc_rt import DepthCrafter
from dc_rt.job import results
from dc_rt.job.early import Early
from dc_rt.job.spool import EARLY
from dc_rt.options import Outputs
from dc_rt.outputs import all_outputs
from job_helpers import Fault, choose, run_job
from media_helpers import moving_gradient, write_clip

OPTIONS = choose("npz", window_size=6, overlap=2, steps=1)
SPOOL = Path("out", ".clip.spool")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, moving_gradient(14, 64, 128, seed=4), Fraction(24))


@pytest.fixture
def as_the_second_pass_writes_it(bundled: DepthCrafter, clip: Path) -> bytes:
    """The input's video of a run that was cut off amid the first pass, and so has not seen all frames."""
    fail_at("denoiser", 2, bundled, clip, "other")
    run_job(bundled, clip, Path("other"), OPTIONS)
    return Path("other", "clip_input.mp4").read_bytes()


def fail_at(stage: str, count: int, model: DepthCrafter, clip: Path, folder: str = "out") -> None:
    """Run until a stage is reported so often."""
    seen = 0

    def progress(name: str, frames: int, seconds: float) -> None:
        nonlocal seen
        seen += name == stage
        if name == stage and seen == count:
            raise Fault

    with pytest.raises(Fault):
        run_job(model, clip, Path(folder), OPTIONS, progress)


def test_the_video_is_read_once_and_the_files_are_the_same(
    bundled: DepthCrafter, clip: Path, as_the_second_pass_writes_it: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "read_at_sizes", None)
    run_job(bundled, clip, Path("out"), OPTIONS)
    assert Path("out/clip_input.mp4").read_bytes() == as_the_second_pass_writes_it
    assert not SPOOL.exists()


def test_a_run_that_fails_in_the_second_pass_keeps_what_the_first_one_wrote(
    bundled: DepthCrafter, clip: Path, as_the_second_pass_writes_it: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = 0

    def progress(name: str, frames: int, seconds: float) -> None:
        nonlocal writing
        writing += name == "write" and frames > 0  # of the second pass
        if writing == 5:
            raise Fault

    with pytest.raises(Fault):
        run_job(bundled, clip, Path("out"), OPTIONS, progress)
    assert (SPOOL / EARLY / "clip_input.mp4").is_file()
    monkeypatch.setattr(results, "read_at_sizes", None)
    run_job(bundled, clip, Path("out"), OPTIONS)
    assert Path("out/clip_input.mp4").read_bytes() == as_the_second_pass_writes_it


def test_what_was_damaged_meanwhile_is_written_anew(
    bundled: DepthCrafter, clip: Path, as_the_second_pass_writes_it: bytes
) -> None:
    def progress(name: str, frames: int, seconds: float) -> None:
        if name == "write" and frames > 0:
            raise Fault

    with pytest.raises(Fault):
        run_job(bundled, clip, Path("out"), OPTIONS, progress)
    early = SPOOL / EARLY / "clip_input.mp4"
    early.write_bytes(early.read_bytes()[:-1] + b"?")
    run_job(bundled, clip, Path("out"), OPTIONS)
    assert Path("out/clip_input.mp4").read_bytes() == as_the_second_pass_writes_it


def test_what_is_not_asked_for_any_more_is_not_among_the_results(bundled: DepthCrafter, clip: Path) -> None:
    def progress(name: str, frames: int, seconds: float) -> None:
        if name == "write" and frames > 0:
            raise Fault

    with pytest.raises(Fault):
        run_job(bundled, clip, Path("out"), OPTIONS, progress)
    run_job(bundled, clip, Path("out"), OPTIONS, names=("npz",))
    assert sorted(path.name for path in Path("out").iterdir()) == ["clip.json", "clip.npz"]


def test_only_a_file_of_what_is_there_by_then_is_written_early() -> None:
    row = all_outputs()["input.mp4"]
    assert row.is_early
    assert not replace(row, kind="frames").is_early
    assert not replace(row, needs=frozenset({"audio"})).is_early
    assert not any(other.is_early for other in all_outputs().values() if other is not row)


def test_nothing_is_taken_that_is_not_what_it_was(tmp_path: Path) -> None:
    plan: Any = SimpleNamespace(name="a", rows=lambda outputs: outputs.rows)
    outputs = Outputs(("input.mp4",))
    (tmp_path / EARLY).mkdir()
    other = Early(tmp_path / EARLY, outputs.manner, {"a_input.mp4": "0" * 64})
    assert other.take(plan, outputs, tmp_path) == frozenset()
    (tmp_path / EARLY / "a_input.mp4").write_bytes(b"a")
    assert other.take(plan, outputs, tmp_path) == frozenset()
    assert not (tmp_path / "a_input.mp4").exists()
    early = replace(other, files={"a_input.mp4": hashlib.sha256(b"a").hexdigest()})
    assert early.take(plan, replace(outputs, size="source"), tmp_path) == frozenset()
    assert early.take(plan, outputs, tmp_path) == frozenset(outputs.rows)
    assert (tmp_path / "a_input.mp4").read_bytes() == b"a"
