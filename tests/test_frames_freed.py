"""Pictures that were read are freed at once, however long Python's collector of garbage waits."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from av.video.frame import VideoFrame

from dc_rt.media import orientation, read_at_sizes
from media_helpers import moving_gradient, write_clip, write_images

NUM_FRAMES, HEIGHT, WIDTH = 60, 96, 160


@pytest.fixture(autouse=True)
def _without_a_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def most_kept(path: Path) -> int:
    """Frames that there are at once while a video is read, at most."""
    most = 0
    for _ in read_at_sizes(path, [(32, 64)]):
        most = max(most, sum(isinstance(each, VideoFrame) for each in gc.get_objects()))
    return most


def test_of_a_video_only_those_are_kept_that_a_decoder_holds(tmp_path: Path) -> None:
    video = write_clip(tmp_path / "clip.mp4", moving_gradient(NUM_FRAMES, HEIGHT, WIDTH))
    assert most_kept(video) < NUM_FRAMES / 2


def test_of_images_only_so_many_bytes_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orientation, "_MOST_UNFREED", 10 * 3 * HEIGHT * WIDTH)
    assert most_kept(write_images(tmp_path / "images", moving_gradient(NUM_FRAMES, HEIGHT, WIDTH))) < NUM_FRAMES / 2
