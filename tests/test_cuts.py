"""Cuts between shots, found in frames."""

import tracemalloc
from itertools import repeat

import numpy as np
import pytest

from bench.accuracy.shots import cases, dissolved, flashed, ours, real, scene
from dc_rt.media.shots import DETECTION_SIZE, find_cuts
from depthcrafter.nano.scenes import make_clip


@pytest.fixture(scope="module")
def shots():
    """Eight procedural scenes, of 40 frames each at the detector's size."""
    return [make_clip(seed, 40, *DETECTION_SIZE).frames for seed in (1, 2, 3, 5, 6, 7, 9, 10)]


def test_cuts_of_real_and_rendered_clips_are_found_and_no_others(tmp_path):
    """Ten joins, among them similar shots, and three real shots as they are, with a flash and with a dissolve."""
    clips = cases(tmp_path)
    assert [clip.cut is None for clip in clips].count(False) == 10
    found = {clip.name: ours(clip.frames) for clip in clips}
    assert {name: len(cuts) for name, cuts in found.items()} == {clip.name: clip.cut is not None for clip in clips}
    assert all(clip.is_near(cut) for clip in clips for cut in found[clip.name])


@pytest.mark.parametrize("length", [4, 5, 6, 7, 13])
def test_a_quick_succession_of_shots_is_found(shots, length):
    """Shots of one to three frames pass for one another's noise; these do not."""
    frames = np.concatenate([shots[0], *(shot[:length] for shot in shots[1:7]), shots[7]])
    assert ours(frames) == [40 + i * length for i in range(7)]


def test_a_shot_of_few_frames_between_others_is_found(shots):
    for length in (1, 2, 3):
        assert ours(np.concatenate([shots[0], shots[1][:length], shots[2]])) == [40, 40 + length]


def test_cuts_at_either_end_are_found(shots):
    assert ours(np.concatenate([shots[0][:1], shots[1], shots[2][:1]])) == [1, 41]
    assert ours(shots[0][:1]) == []
    assert ours(shots[0][:0]) == []
    assert ours(np.concatenate([shots[0][:1], shots[1][:1]])) == [1]


@pytest.mark.parametrize("length", [1, 2, 3, 5])
@pytest.mark.parametrize("strength", [0.35, 0.8, 1.0])
def test_a_flash_is_no_cut(length, strength):
    for frames in (real("carphone_pristine.mp4", 0, 60), scene(7)):
        small = frames[:, ::4, ::4]
        for at in (8, 15, 20):
            assert ours(flashed(small, at, length, strength)) == []


@pytest.mark.parametrize("length", [4, 8, 25])
def test_a_dissolve_is_no_cut(length):
    one, other = (real("bikes.mp4", start, start + 45)[:, ::4, ::4] for start in (140, 190))
    assert ours(dissolved(one, other, length)) == []


def test_every_frame_twice_or_most_of_them_left_out_is_no_cut():
    """Film on twos, and every fourth frame of a street in which cars pass close by."""
    frames = real("bikes.mp4", 77, 137)[:, ::4, ::4]
    assert ours(np.repeat(frames[::2], 2, axis=0)) == []
    assert ours(frames[::4]) == []


def test_the_numbers_of_frames_are_those_that_are_given(shots):
    """Some were lost: a shot begins with its first that is there."""
    frames = np.concatenate(shots[:2])
    numbers = [number for number in range(80) if number not in (38, 39, 40, 41, 60)]
    assert list(find_cuts((number, frames[number]) for number in numbers)) == [42]


def test_cuts_come_as_frames_do_and_in_constant_memory(shots):
    def peak(num_frames):
        tracemalloc.start()
        cuts = list(find_cuts((number, shots[number // 8 % 8][0]) for number in range(num_frames)))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert cuts == list(range(8, num_frames, 8))
        return size

    taken = 0

    def watched():
        nonlocal taken
        for frame in [*shots[0], *shots[1], *repeat(shots[1][-1], 100)]:
            yield taken, frame
            taken += 1

    assert next(find_cuts(watched())) == 40
    assert taken == 46
    assert peak(4000) < 1.5 * peak(80)
