import numpy as np

from dc_rt.spool import Spool


def test_depth_comes_back_normalised_over_all_frames(tmp_path):
    frames = np.random.default_rng(0).uniform(0.2, 0.6, (5, 3, 4)).astype(np.float32)
    spool = Spool(tmp_path / "spool", 3, 4)
    for frame in frames:
        spool.append(frame)
    expected = (frames - frames.min()) / (frames.max() - frames.min())
    for _ in range(2):  # it can be read again
        np.testing.assert_array_equal(np.stack(list(spool.normalised())), expected)
    assert (spool.num_frames, spool.min, spool.max) == (5, frames.min(), frames.max())
    spool.close()


def test_depth_that_is_the_same_everywhere_becomes_zero(tmp_path):
    spool = Spool(tmp_path / "spool", 2, 2)
    spool.append(np.full((2, 2), 0.7, np.float32))
    assert np.stack(list(spool.normalised())).tolist() == [[[0, 0], [0, 0]]]
    spool.close()
