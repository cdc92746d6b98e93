from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dc_rt import Sampling, UserError
from dc_rt.windows import blend, blend_weights, plan_windows

window_and_overlap = st.integers(1, 40).flatmap(lambda w: st.tuples(st.just(w), st.integers(0, w - 1)))


@pytest.mark.parametrize(
    ("num_frames", "windows"),
    [
        (0, []),
        (1, [(0, 1)]),
        (15, [(0, 15)]),
        (16, [(0, 16)]),
        (17, [(0, 16), (11, 17)]),
        (26, [(0, 16), (11, 26)]),
        (27, [(0, 16), (11, 27)]),
        (28, [(0, 16), (11, 27), (22, 28)]),
    ],
)
def test_a_window_follows_exactly_when_a_frame_lies_beyond(num_frames, windows):
    assert list(plan_windows(num_frames, 16, 5)) == windows


@given(st.integers(1, 200), window_and_overlap)
def test_windows_cover_the_video_and_share_the_overlap(num_frames, sizes):
    window, overlap = sizes
    windows = list(plan_windows(num_frames, window, overlap))
    assert windows[0][0] == 0
    assert windows[-1][1] == num_frames
    assert all(0 < end - start <= window for start, end in windows)
    for (_, end), (start, next_end) in pairwise(windows):
        assert end - start == overlap
        assert next_end > end


@given(st.integers(1, 200), window_and_overlap)
def test_windows_are_those_of_the_originals_loop(num_frames, sizes):
    window, overlap = sizes
    if num_frames <= window:
        window, overlap = num_frames, 0  # as the original does
    expected, start = [], 0
    while start < num_frames - overlap:
        expected.append((start, min(start + window, num_frames)))
        start += window - overlap
    assert list(plan_windows(num_frames, *sizes)) == expected


@pytest.mark.parametrize(("window", "overlap"), [(0, 0), (-3, 0), (16, 16), (16, 17), (16, -1)])
def test_impossible_windows_are_an_error(window, overlap):
    with pytest.raises(UserError, match=r"; try (window_size|overlap)="):
        Sampling(window_size=window, overlap=overlap)


def test_the_suggested_overlap_is_possible():
    for window in range(1, 200):
        with pytest.raises(UserError) as error:
            Sampling(window_size=window, overlap=window)
        assert 0 <= int(str(error.value).rstrip(".").rsplit("=", 1)[1]) < window


def test_a_blend_goes_from_the_old_to_the_new_frames():
    old, new = np.zeros((5, 4, 2, 2), np.float32), np.ones((5, 4, 2, 2), np.float32)
    assert blend(old, new)[:, 0, 0, 0].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert blend_weights(1).tolist() == [0]
    assert blend(old[:0], new[:0]).shape == (0, 4, 2, 2)
