"""Noise made ahead is the noise, whatever is asked for, and little is made in vain."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
from numpy.typing import NDArray

from dc_rt import noise_ahead
from dc_rt.noise import Noise
from dc_rt.noise_ahead import NoiseAhead
from dc_rt.pipeline import CHUNK, _cuts

SCALE = np.float32(0.02)
SHAPE = (16, 24)


class Counted(Noise):
    """Knows which frames it was asked for."""

    def __init__(self) -> None:
        super().__init__(7)
        self.filled: list[int] = []

    def fill_frame(self, index: int, out: NDArray[np.float32]) -> None:
        self.filled.append(index)
        super().fill_frame(index, out)


class Another:
    """A source of someone else's, which has noise for ten frames."""

    def __init__(self) -> None:
        self._noise = np.random.default_rng(1).standard_normal((10, 3, *SHAPE), np.float32)

    def frame(self, index: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        return self._noise[index]

    def latent(self, slot: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        raise NotImplementedError


def cuts() -> Iterator[tuple[int, int]]:
    """Of windows of 20 frames that share 5."""
    return _cuts(0, 20, 15)


def test_chunks_are_cut_where_windows_end() -> None:
    assert list(islice(cuts(), 7)) == [(0, 8), (8, 8), (16, 4), (20, 8), (28, 7), (35, 8), (43, 7)]
    assert list(islice(_cuts(30, 12, 15), 3)) == [(30, 8), (38, 4), (42, 8)]


def test_it_is_the_noise_of_each_frame_bit_for_bit() -> None:
    noise = Noise(3)
    with NoiseAhead(noise, SCALE, SHAPE, cuts(), 15) as ahead:
        for index, num_frames in islice(cuts(), 9):
            expected = SCALE * np.stack([noise.frame(index + i, (3, *SHAPE)) for i in range(num_frames)])
            actual = ahead.take(index, num_frames)
            assert actual.dtype == np.float32
            assert np.array_equal(actual, expected)


def test_the_last_chunk_may_be_shorter_and_no_other_is_given() -> None:
    with NoiseAhead(Noise(3), SCALE, SHAPE, cuts(), 15) as ahead:
        assert len(ahead.take(0, 3)) == 3
        with pytest.raises(ValueError, match="not the next chunk"):
            ahead.take(16, 4)


def test_little_is_made_for_a_short_video_and_no_more_than_may_be_for_a_long_one(monkeypatch) -> None:
    noise = Counted()
    with NoiseAhead(noise, SCALE, SHAPE, cuts(), 15) as ahead:
        ahead.take(0, 4)
    assert max(noise.filled) < 8 * CHUNK
    monkeypatch.setattr(noise_ahead, "AHEAD_BYTES", 4 * 3 * SHAPE[0] * SHAPE[1] * 12)  # 12 frames
    noise = Counted()
    with NoiseAhead(noise, SCALE, SHAPE, cuts(), 100) as ahead:
        for index, num_frames in islice(cuts(), 12):
            ahead.take(index, num_frames)
            assert max(noise.filled) < index + num_frames + 12 + 2 * CHUNK


def test_another_source_is_asked_for_the_frames_that_there_are() -> None:
    source = Another()
    with NoiseAhead(source, SCALE, SHAPE, cuts(), 15) as ahead:
        assert np.array_equal(ahead.take(0, 8), SCALE * source._noise[:8])
        assert np.array_equal(ahead.take(8, 2), SCALE * source._noise[8:])


def test_a_failure_in_a_thread_is_raised_where_the_noise_is_taken() -> None:
    class Broken(Noise):
        def fill_frame(self, index: int, out: NDArray[np.float32]) -> None:
            raise MemoryError(f"frame {index}")

    with NoiseAhead(Broken(), SCALE, SHAPE, cuts(), 15) as ahead, pytest.raises(MemoryError, match="frame 0"):
        ahead.take(0, 8)
