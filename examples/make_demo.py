"""Make the clip of `make demo`: a camera gliding over a chequered floor past three balls, ray traced with NumPy.

python examples/make_demo.py examples/demo.mp4
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dc_rt.media import Mp4Writer

HEIGHT, WIDTH, FRAMES, FPS = 192, 320, 60, Fraction(24)
LIGHT = np.array([0.5, 0.8, -0.4]) / np.linalg.norm([0.5, 0.8, -0.4])
# Centre (x, y, z), radius and colour; y is up, the camera looks along z.
BALLS = [
    ((-1.6, 0.7, 4.5), 0.7, (0.85, 0.25, 0.20)),
    ((0.3, 1.0, 7.0), 1.0, (0.20, 0.55, 0.85)),
    ((2.2, 0.5, 3.8), 0.5, (0.95, 0.75, 0.20)),
]
SKY = np.array([0.62, 0.74, 0.88])


def render(time: float) -> NDArray[np.uint8]:
    """The scene at `time` in [0,1]: uint8 [H,W,3]."""
    camera = np.array([1.6 * np.sin(2 * np.pi * time), 1.3, 1.5 * time])
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    rays = np.stack([(x - WIDTH / 2) / HEIGHT, (HEIGHT / 2 - y) / HEIGHT - 0.15, np.full(x.shape, 0.9)], axis=-1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)

    image = np.broadcast_to(SKY, rays.shape).copy()
    nearest = np.full(x.shape, np.inf)
    _floor(image, nearest, camera, rays)
    for centre, radius, colour in BALLS:
        _ball(image, nearest, camera, rays, np.array(centre), radius, np.array(colour))
    fog = np.exp(-np.minimum(nearest, 60) / 25)[..., None]
    return np.round(255 * (fog * image + (1 - fog) * SKY)).astype(np.uint8)


def _floor(
    image: NDArray[np.float64], nearest: NDArray[np.float64], camera: NDArray[np.float64], rays: NDArray[np.float64]
) -> None:
    down = np.where(rays[..., 1] < -1e-3, rays[..., 1], np.nan)
    distance = -camera[1] / down
    hit = distance < nearest
    point = camera + distance[..., None] * rays
    chequer = (np.floor(point[..., 0]) + np.floor(point[..., 2])) % 2
    shade = np.where(chequer == 1, 0.75, 0.40)
    for centre, radius, _ in BALLS:
        apart = np.hypot(point[..., 0] - centre[0], point[..., 2] - centre[2])
        shade *= np.where(apart < radius, 0.55, 1.0)  # where the balls stand
    image[hit] = (shade[..., None] * np.array([1.0, 0.95, 0.85]))[hit]
    nearest[hit] = distance[hit]


def _ball(
    image: NDArray[np.float64],
    nearest: NDArray[np.float64],
    camera: NDArray[np.float64],
    rays: NDArray[np.float64],
    centre: NDArray[np.float64],
    radius: float,
    colour: NDArray[np.float64],
) -> None:
    offset = camera - centre
    half_b = rays @ offset
    discriminant = half_b**2 - (offset @ offset - radius**2)
    distance = -half_b - np.sqrt(np.maximum(discriminant, 0))
    hit = (discriminant > 0) & (distance > 0) & (distance < nearest)
    normal = (camera + distance[..., None] * rays - centre) / radius
    light = 0.25 + 0.75 * np.clip(normal @ LIGHT, 0, 1)
    stripes = 0.85 + 0.15 * np.sign(np.sin(9 * normal[..., 1]))
    image[hit] = ((light * stripes)[..., None] * colour)[hit]
    nearest[hit] = distance[hit]


def main(path: str) -> None:
    """Write the clip to `path`."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Mp4Writer(path, FPS, HEIGHT, WIDTH) as video:
        for index in range(FRAMES):
            video.write(render(index / FRAMES))


if __name__ == "__main__":
    main(sys.argv[1])
