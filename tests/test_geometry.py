"""Points in space: what a pinhole camera sees where its pixels are."""

from __future__ import annotations

import numpy as np
import pytest

from dc_rt import UserError
from dc_rt.geometry import Lens


def test_points_are_seen_where_their_pixels_are() -> None:
    disparity = np.random.default_rng(0).random((6, 10), np.float32)
    lens = Lens(focal=0.8, near=2, far=50)
    x, y, z = np.moveaxis(lens.points(disparity, pixel_aspect=2.0), -1, 0)
    assert (z < 0).all()
    # Projected anew: a picture 10 pixels wide, whose pixels are twice as wide as they are high.
    columns = (0.8 * x / -z + 0.5) * 10 - 0.5
    rows = 3 - 0.8 * y / -z * 10 * 2.0 - 0.5
    np.testing.assert_allclose(columns, np.broadcast_to(np.arange(10), (6, 10)), atol=1e-4)
    np.testing.assert_allclose(rows, np.broadcast_to(np.arange(6)[:, None], (6, 10)), atol=1e-4)


def test_disparity_1_is_near_0_is_far_and_half_is_halfway_in_inverse_distance() -> None:
    lens = Lens(near=1, far=4)
    np.testing.assert_allclose(lens.distance(np.array([1, 0, 0.5], np.float32)), [1, 4, 1.6], rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"focal": 0.0}, "focal must be a number greater than 0"),
        ({"near": -1.0}, "near must be a number greater than 0"),
        ({"far": float("inf")}, "far must be a number greater than 0"),
        ({"near": 3.0, "far": 2.0}, r"far=2\.0 must be farther than near=3\.0"),
        ({"focal": float("nan")}, "focal must be a number greater than 0"),
    ],
)
def test_a_lens_that_sees_nothing_is_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Lens(**values)
