import numpy as np
import pytest

from dc_rt import Noise, UserError


def test_noise_depends_on_seed_kind_and_index_alone():
    shape = (4, 16, 16)
    first = Noise(7).latent(3, shape)
    other = Noise(7)
    other.frame(0, (3, 64, 64))
    np.testing.assert_array_equal(other.latent(3, shape), first)
    for different in (Noise(8).latent(3, shape), Noise(7).latent(4, shape), Noise(7).frame(3, shape)):
        assert abs(np.corrcoef(first.ravel(), different.ravel())[0, 1]) < 0.15


def test_noise_is_standard_normal_float32():
    noise = Noise(0).frame(0, (3, 256, 256))
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 0.01
    assert noise.std() == pytest.approx(1, abs=0.01)
    assert (np.abs(noise) > 1.96).mean() == pytest.approx(0.05, abs=0.005)


def test_the_whole_range_of_seeds_is_taken():
    assert not np.array_equal(Noise(0).latent(0, (4,)), Noise(2**64 - 1).latent(0, (4,)))
    for seed in (-1, 2**64):
        with pytest.raises(UserError, match="seed"):
            Noise(seed)
