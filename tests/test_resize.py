import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing

from dc_rt.resize import resize_matrix


@pytest.mark.parametrize(("height", "width"), [(64, 64), (192, 320), (256, 448), (448, 1024), (576, 1024), (1024, 64)])
def test_the_two_matrices_are_diffusers_antialiased_resize(height, width):
    image = np.random.default_rng(0).uniform(-1, 1, (3, height, width)).astype(np.float32)
    expected = _resize_with_antialiasing(torch.from_numpy(image)[None], (224, 224))[0].numpy()
    actual = resize_matrix(height) @ image @ resize_matrix(width).T
    np.testing.assert_allclose(actual, expected, atol=5e-6)


@pytest.mark.parametrize("length", [64, 224, 576, 2048])
def test_a_resize_keeps_a_constant(length):
    matrix = resize_matrix(length)
    assert matrix.shape == (224, length)
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
