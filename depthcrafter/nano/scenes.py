"""Procedural video with exact depth: furnished rooms seen by a moving camera, ray cast with NumPy.

A scene is a pure function of its seed; a clip is a pure function of the scene, the number of frames and the size. The
first n frames of a longer clip are the clip of n frames.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FRAMES_PER_SECOND = 12.0

Array = NDArray[np.float32]
Vector = tuple[Array, Array, Array]
Shape = Literal["box", "sphere", "cylinder"]
Pattern = Literal["plain", "checks", "stripes", "blotches"]


@dataclass(frozen=True)
class Clip:
    """Frames, uint8 [T,H,W,3] RGB, and their exact depth along the camera's axis in metres, float32 [T,H,W]."""

    frames: NDArray[np.uint8]
    depth: Array

    @property
    def disparity(self) -> Array:
        """What DepthCrafter predicts: 1/depth, normalised over the clip to [0,1], larger is nearer; as `depth`."""
        disparity = 1 / self.depth
        least, most = disparity.min(), disparity.max()
        normalised: Array = (disparity - least) / (most - least)
        return normalised


@dataclass(frozen=True)
class Surface:
    """A pattern of two colours (RGB in [0,1]) with so many cells a metre."""

    pattern: Pattern
    colours: NDArray[np.float32]
    cells: float
    phase: float


@dataclass(frozen=True)
class Swing:
    """Harmonic motion about a point: `centre + amplitude * sin(2 pi t / period + phase)`."""

    centre: NDArray[np.float64]
    amplitude: NDArray[np.float64]
    period: float
    phase: float

    def at(self, time: float) -> NDArray[np.float64]:
        return self.centre + self.amplitude * math.sin(2 * math.pi * time / self.period + self.phase)


@dataclass(frozen=True)
class Thing:
    """A solid upon the floor or above it. `size` are half extents; a sphere and a cylinder are as wide as `size[0]`."""

    shape: Shape
    size: NDArray[np.float64]
    position: Swing
    yaw: Swing
    surface: Surface


@dataclass(frozen=True)
class Scene:
    """A room about the camera (x right, y up, z ahead, metres), things in it, light and fog."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    room: tuple[Surface, ...]
    things: tuple[Thing, ...]
    eye: Swing
    # Yaw, pitch and roll, radians.
    turn: Swing
    # Half the field of view's height over its distance.
    half_view: float
    light: NDArray[np.float32]
    ambient: float
    fog: float
    fog_colour: NDArray[np.float32]


def make_clip(seed: int, num_frames: int, height: int, width: int, *, static_camera: bool | None = None) -> Clip:
    """The clip of a seed.

    Args:
        seed: not negative.
        num_frames: T, at `FRAMES_PER_SECOND`.
        height: H.
        width: W.
        static_camera: whether the camera stands still; None leaves it to the seed.
    """
    scene = make_scene(seed)
    if static_camera is None:
        static_camera = seed % 4 == 0
    if static_camera:
        scene = dataclasses.replace(scene, eye=_still(scene.eye), turn=_still(scene.turn))
    images, depths = zip(
        *(render(scene, frame / FRAMES_PER_SECOND, height, width) for frame in range(num_frames)), strict=True
    )
    return Clip(np.stack(images), np.stack(depths))


def make_scene(seed: int) -> Scene:
    """The scene of a seed."""
    rng = np.random.default_rng([seed, 0x5CE4E])
    wide, deep, tall = rng.uniform(2.2, 5.0), rng.uniform(5.0, 11.0), rng.uniform(2.6, 5.5)
    low, high = np.array([-wide, 0.0, -2.5]), np.array([wide, tall, deep])
    light = np.array([rng.uniform(-0.8, 0.8), 1.0, rng.uniform(-1.0, 0.2)])
    return Scene(
        low=low,
        high=high,
        # The floor, the walls at either hand, the wall ahead and the rest.
        room=tuple(_surface(rng) for _ in range(5)),
        things=tuple(_thing(rng, low, high) for _ in range(rng.integers(2, 8))),
        eye=Swing(
            np.array([rng.uniform(-0.8, 0.8), rng.uniform(0.8, 2.1), rng.uniform(-0.6, 0.2)]),
            rng.uniform(-1, 1, 3) * (0.5, 0.15, 0.6),
            rng.uniform(3, 8),
            rng.uniform(0, 2 * math.pi),
        ),
        turn=Swing(
            np.radians([rng.uniform(-22, 22), rng.uniform(-18, 4), rng.uniform(-2, 2)]),
            np.radians(rng.uniform(-1, 1, 3) * (10, 3, 1)),
            rng.uniform(3, 8),
            rng.uniform(0, 2 * math.pi),
        ),
        half_view=math.tan(math.radians(rng.uniform(36, 62)) / 2),
        light=(light / np.linalg.norm(light)).astype(np.float32),
        ambient=rng.uniform(0.35, 0.6),
        fog=rng.choice([0.0, rng.uniform(0.02, 0.12)]),
        fog_colour=rng.uniform(0.55, 0.9, 3).astype(np.float32),
    )


def render(scene: Scene, time: float, height: int, width: int) -> tuple[NDArray[np.uint8], Array]:
    """A frame: uint8 [H,W,3] and its depth, float32 [H,W].

    Args:
        scene: what is seen.
        time: seconds.
        height: H.
        width: W.
    """
    eye = scene.eye.at(time)
    focal = height / 2 / scene.half_view
    rays = _rays(scene.turn.at(time), focal, height, width)

    hits = [_Room(scene, eye, rays)] + [_SOLIDS[thing.shape](thing, time, eye, rays) for thing in scene.things]
    nearest = np.full(height * width, np.inf, np.float32)
    seen = np.zeros(height * width, np.int8)
    for index, hit in enumerate(hits):
        closer = hit.distance < nearest
        nearest[closer] = hit.distance[closer]
        seen[closer] = index

    image = np.empty((height * width, 3), np.float32)
    for index, hit in enumerate(hits):
        pixels = np.flatnonzero(seen == index)
        if len(pixels):
            x, y, z = (np.float32(eye[axis]) + nearest[pixels] * rays[axis][pixels] for axis in range(3))
            image[pixels] = hit.shade(pixels, (x, y, z), nearest[pixels] / np.float32(focal), scene, time)
    clear = np.exp(-scene.fog * nearest)[:, None].astype(np.float32)
    image = clear * image + (1 - clear) * scene.fog_colour
    pixels_u8 = np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8).reshape(height, width, 3)
    return pixels_u8, nearest.reshape(height, width)


class _Room:
    """The inside of a box: floor, walls, ceiling."""

    def __init__(self, scene: Scene, eye: NDArray[np.float64], rays: Vector) -> None:
        far = [
            (np.where(ray > 0, np.float32(scene.high[axis]), np.float32(scene.low[axis])) - np.float32(eye[axis])) / ray
            for axis, ray in enumerate(rays)
        ]
        self.distance = functools.reduce(np.minimum, far)
        self._axis = np.select([self.distance == far[0], self.distance == far[1]], [0, 1], 2)
        self._ahead = [ray > 0 for ray in rays]

    def shade(self, pixels: NDArray[np.intp], point: Vector, footprint: Array, scene: Scene, time: float) -> Array:
        colour = np.empty((len(pixels), 3), np.float32)
        axis = self._axis[pixels]
        for face in range(6):
            ahead = bool(face % 2)
            chosen = np.flatnonzero((axis == face // 2) & (self._ahead[face // 2][pixels] == ahead))
            if not len(chosen):
                continue
            across, along = (point[other][chosen] for other in range(3) if other != face // 2)
            surface = scene.room[(1, 2, 0, 4, 4, 3)[face]]
            colour[chosen] = _pattern(surface, across, along, footprint[chosen])
            normal = -1.0 if ahead else 1.0
            colour[chosen] *= scene.ambient + (1 - scene.ambient) * max(0.0, normal * float(scene.light[face // 2]))
            if face == 2:
                colour[chosen] *= _shadows(scene, time, across, along)[:, None]
        return colour


class _Solid:
    """A thing in its own frame, turned by its yaw; `distance` is infinite where it is missed."""

    distance: Array

    def __init__(self, thing: Thing, time: float, eye: NDArray[np.float64], rays: Vector) -> None:
        self._thing = thing
        self._centre = thing.position.at(time)
        yaw = float(thing.yaw.at(time)[0])
        self._turn = np.float32(math.cos(yaw)), np.float32(math.sin(yaw))
        offset = eye - self._centre
        self._eye = self._into(*offset.astype(np.float32))
        self._rays = self._into(*rays)
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = self._intersect(*self._eye, *self._rays)
        self.distance = np.where(distance > 0.05, distance, np.float32(np.inf))

    def shade(self, pixels: NDArray[np.intp], point: Vector, footprint: Array, scene: Scene, time: float) -> Array:
        local = self._into(*(point[axis] - np.float32(self._centre[axis]) for axis in range(3)))
        normal, across, along = self._skin(*local)
        colour = _pattern(self._thing.surface, across, along, footprint)
        light = self._into(*scene.light)
        lit = sum(n * np.float32(component) for n, component in zip(normal, light, strict=True))
        return colour * (scene.ambient + (1 - scene.ambient) * np.maximum(lit, 0))[:, None]

    def _into(self, x: Array, y: Array, z: Array) -> Vector:
        cos, sin = self._turn
        return cos * x - sin * z, y, sin * x + cos * z

    def _intersect(self, ex: Array, ey: Array, ez: Array, dx: Array, dy: Array, dz: Array) -> Array:
        raise NotImplementedError

    def _skin(self, x: Array, y: Array, z: Array) -> tuple[Vector, Array, Array]:
        """Normal and two surface coordinates of a point in the thing's frame."""
        raise NotImplementedError


class _Box(_Solid):
    def _intersect(self, ex: Array, ey: Array, ez: Array, dx: Array, dy: Array, dz: Array) -> Array:
        enter, leave = np.float32(-np.inf), np.float32(np.inf)
        for e, d, half in zip((ex, ey, ez), (dx, dy, dz), self._thing.size, strict=True):
            middle, reach = -e / d, np.abs(np.float32(half) / d)
            enter, leave = np.maximum(enter, middle - reach), np.minimum(leave, middle + reach)
        return np.where(enter < leave, enter, np.float32(np.inf))

    def _skin(self, x: Array, y: Array, z: Array) -> tuple[Vector, Array, Array]:
        outness = [np.abs(p) - np.float32(half) for p, half in zip((x, y, z), self._thing.size, strict=True)]
        most = functools.reduce(np.maximum, outness)
        on_x, on_y = outness[0] == most, outness[1] == most
        on_y &= ~on_x
        on_z = ~(on_x | on_y)
        return (
            (np.where(on_x, np.sign(x), 0), np.where(on_y, np.sign(y), 0), np.where(on_z, np.sign(z), 0)),
            np.where(on_x, z, x),
            np.where(on_y, z, y),
        )


class _Sphere(_Solid):
    def _intersect(self, ex: Array, ey: Array, ez: Array, dx: Array, dy: Array, dz: Array) -> Array:
        a = dx * dx + dy * dy + dz * dz
        b = ex * dx + ey * dy + ez * dz
        c = ex * ex + ey * ey + ez * ez - np.float32(self._thing.size[0] ** 2)
        return _nearer_root(a, b, c)

    def _skin(self, x: Array, y: Array, z: Array) -> tuple[Vector, Array, Array]:
        radius = np.float32(self._thing.size[0])
        return (x / radius, y / radius, z / radius), np.arctan2(x, z) * radius, y


class _Cylinder(_Solid):
    def _intersect(self, ex: Array, ey: Array, ez: Array, dx: Array, dy: Array, dz: Array) -> Array:
        radius, half = np.float32(self._thing.size[0]), np.float32(self._thing.size[1])
        side = _nearer_root(dx * dx + dz * dz, ex * dx + ez * dz, ex * ex + ez * ez - radius**2)
        side = np.where(np.abs(ey + side * dy) < half, side, np.float32(np.inf))
        # The end that faces the eye.
        end = (np.copysign(half, ey) - ey) / dy
        end = np.where((ex + end * dx) ** 2 + (ez + end * dz) ** 2 < radius**2, end, np.float32(np.inf))
        return np.minimum(side, np.where(np.abs(ey) > half, end, np.float32(np.inf)))

    def _skin(self, x: Array, y: Array, z: Array) -> tuple[Vector, Array, Array]:
        radius, half = np.float32(self._thing.size[0]), np.float32(self._thing.size[1])
        on_end = np.abs(y) > half * np.float32(0.9999)
        around = np.where(on_end, 0, 1 / radius)
        normal = (x * around, np.where(on_end, np.sign(y), 0), z * around)
        return normal, np.where(on_end, x, np.arctan2(x, z) * radius), np.where(on_end, z, y)


_SOLIDS: dict[Shape, Callable[[Thing, float, NDArray[np.float64], Vector], _Solid]] = {
    "box": _Box,
    "sphere": _Sphere,
    "cylinder": _Cylinder,
}


def _nearer_root(a: Array, b: Array, c: Array) -> Array:
    """The smaller root of a t^2 + 2 b t + c; infinite where there is none."""
    discriminant = b * b - a * c
    return np.where(discriminant > 0, (-b - np.sqrt(np.maximum(discriminant, 0))) / a, np.float32(np.inf))


def _rays(turn: NDArray[np.float64], focal: float, height: int, width: int) -> Vector:
    """Directions through the pixels' centres, with 1 along the camera's axis, so that the parameter is depth."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    right = ((x + 0.5 - width / 2) / focal).ravel()
    up = ((height / 2 - y - 0.5) / focal).ravel()
    yaw, pitch, roll = turn
    about_y = np.array([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, math.cos(pitch), math.sin(pitch)], [0, -math.sin(pitch), math.cos(pitch)]])
    about_z = np.array([[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]])
    m = (about_y @ about_x @ about_z).astype(np.float32)
    rays = tuple(m[axis, 0] * right + m[axis, 1] * up + m[axis, 2] for axis in range(3))
    # No ray runs along a wall exactly.
    return tuple(np.where(np.abs(ray) < 1e-6, np.float32(1e-6), ray) for ray in rays)  # type: ignore[return-value]


def _pattern(surface: Surface, across: Array, along: Array, footprint: Array) -> Array:
    """Colours [n,3] at surface coordinates in metres; `footprint` is a pixel's width there, also in metres."""
    u = across * np.float32(surface.cells) + np.float32(surface.phase)
    v = along * np.float32(surface.cells) + np.float32(surface.phase)
    if surface.pattern == "checks":
        mix = (np.floor(u) + np.floor(v)) % 2
    elif surface.pattern == "stripes":
        mix = np.floor(u) % 2
    elif surface.pattern == "blotches":
        mix = 0.5 + 0.25 * (np.sin(2.1 * u + 1.7 * np.sin(1.3 * v)) + np.sin(2.7 * v + 1.9 * np.sin(1.1 * u)))
    else:
        mix = np.zeros_like(u)
    # What is finer than a pixel would flicker: it fades into its mean.
    sharp = np.clip(1.5 - 2 * footprint * np.float32(surface.cells), 0, 1)
    mix = ((mix - 0.5) * sharp + 0.5).astype(np.float32)[:, None]
    colours: Array = surface.colours[0] * (1 - mix) + surface.colours[1] * mix
    return colours


def _shadows(scene: Scene, time: float, x: Array, z: Array) -> Array:
    """How light the floor is below the things: soft and fainter the higher they are; [n] in [0,1]."""
    light = np.ones_like(x)
    for thing in scene.things:
        centre = thing.position.at(time)
        gap = max(0.0, centre[1] - thing.size[1])
        wide = max(thing.size[0], thing.size[2]) * (1.1 + 0.5 * gap)
        apart = ((x - np.float32(centre[0])) ** 2 + (z - np.float32(centre[2])) ** 2) / np.float32(wide**2)
        light *= 1 - np.float32(0.6 / (1 + 2 * gap)) * np.exp(-(apart**2))
    return light


def _surface(rng: np.random.Generator) -> Surface:
    pattern: Pattern = rng.choice(["plain", "checks", "stripes", "blotches"], p=[0.25, 0.3, 0.2, 0.25])
    base = rng.uniform(0.15, 0.95, 3)
    other = np.clip(base * rng.uniform(0.4, 0.85) + rng.uniform(-0.1, 0.1, 3), 0, 1)
    return Surface(pattern, np.array([base, other], np.float32), rng.uniform(0.8, 3.0), rng.uniform(0, 10))


def _thing(rng: np.random.Generator, low: NDArray[np.float64], high: NDArray[np.float64]) -> Thing:
    shape: Shape = rng.choice(["box", "sphere", "cylinder"], p=[0.45, 0.35, 0.2])
    size = rng.uniform(0.2, 0.8, 3)
    if shape == "sphere":
        size[:] = rng.uniform(0.25, 0.8)
    elif shape == "cylinder":
        size[0] = size[2] = rng.uniform(0.15, 0.5)
        size[1] = rng.uniform(0.3, 1.2)
    z = rng.uniform(2.4, high[2] - 1.2)
    # Within what the camera is likely to see.
    x = rng.uniform(-1, 1) * min(high[0] - 1.0, 0.4 + 0.55 * z)
    moves, floats = rng.random() < 0.4, rng.random() < 0.25
    height = size[1] + (rng.uniform(0.2, 1.2) if floats else 0.0)
    sway = np.array([rng.uniform(-0.9, 0.9), rng.uniform(0, 0.2) if floats else 0.0, rng.uniform(-0.6, 0.6)])
    spin = rng.uniform(-0.8, 0.8) if moves else 0.0
    period, phase = rng.uniform(2, 6), rng.uniform(0, 2 * math.pi)
    return Thing(
        shape=shape,
        size=size,
        position=Swing(np.array([x, height, z]), sway * moves, period, phase),
        yaw=Swing(np.array([rng.uniform(0, math.pi)]), np.array([spin]), period, phase),
        surface=_surface(rng),
    )


def _still(swing: Swing) -> Swing:
    return dataclasses.replace(swing, amplitude=np.zeros_like(swing.amplitude))
