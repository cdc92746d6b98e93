"""One HTML file that shows a result, with all of it inside (docs/view.md).

The file is written frame by frame, and never held. Every frame is text in an element of its own, which a short script
behind it takes out of the document as soon as the browser has read so far: no string is longer than a frame's.
"""

from __future__ import annotations

import html
import json
import os
import re
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dc_rt.cores import num_cores
from dc_rt.errors import UserError, option
from dc_rt.formats import COLORMAPS
from dc_rt.geometry import Lens
from dc_rt.job.forecast import size_in_words
from dc_rt.job.targets import text
from dc_rt.media.colormap import table
from dc_rt.stored import Stored
from dc_rt.view.frames import unwritable
from dc_rt.view.packing import FEWEST_BITS, MOST_BITS, Size, depth_error, pack_depth, pack_picture

MOST_BYTES = 1_000_000_000
"""Of a page: browsers read larger ones slowly, if at all."""
MOST_LONGEST = 4096
"""Of a page's frames, in pixels: what graphics cards, those of telephones too, take as a texture."""
DEFAULT_LONGEST, DEFAULT_BITS = 1024, 16

# Of these, the size of all of them is told before they are written.
_SAMPLES = 8
_STATIC = Path(__file__).with_name("static")
_SCRIPTS = ("three.js", "frames.js", "scene.js", "player.js", "page.js")
_GENERATOR = b'<meta name="generator" content="DepthCrafter-RT">'
_TAKE = "viewer.take()"


@dataclass(frozen=True)
class Packing:
    """How much of a result is put into its page.

    Attributes:
        longest: side of its frames at most, in pixels.
        bits: of depth.

    Raises:
        UserError: for a value out of its range.
    """

    longest: int = DEFAULT_LONGEST
    bits: int = DEFAULT_BITS

    def __post_init__(self) -> None:
        if not 1 <= self.longest <= MOST_LONGEST:
            raise UserError(f"{option('max_size', self.longest)} is not possible; give 1 to {MOST_LONGEST}.")
        if not FEWEST_BITS <= self.bits <= MOST_BITS:
            raise UserError(
                f"{option('depth_bits', self.bits)} is not possible; give {FEWEST_BITS} to {MOST_BITS} of them."
            )

    def size(self, stored: Stored) -> Size:
        """Of the page's frames."""
        return Size(stored.height, stored.width).within(self.longest)


def write_page(
    stored: Stored,
    path: Path,
    lens: Lens,
    frames: range,
    packing: Packing,
    tell: Callable[[str], None],
    on_frame: Callable[[], None] = lambda: None,
) -> None:
    """Write a result as one HTML file.

    Args:
        stored: the result.
        path: of the file. One that this has written is replaced, in one step, and no other.
        lens: that the page begins with.
        frames: numbers of those that are taken.
        packing: how they are.
        tell: hears in a sentence how large the file will be, before it is written.
        on_frame: hears of every frame that has been.

    Raises:
        UserError: the file would be too large, is not to be replaced, or cannot be written; or the result cannot be
            read.
    """
    _check_replaceable(path)
    size = packing.size(stored)
    head, tail = _page(stored, lens, frames, packing)
    packed = _packed(stored, frames, size, packing.bits)
    with closing(packed):
        samples = list(islice(packed, _SAMPLES))
        num_bytes = len(head) + len(tail) + sum(map(len, samples)) * len(frames) // len(samples)
        _check_size(path, num_bytes, "would be about")
        tell(_forecast(stored, path, frames, size, packing, num_bytes))
        # Not called after the page, whose name may be as long as names can be; and each of two calls has its own.
        partial = path.with_name(f".{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(head)
                for element in chain(samples, packed):
                    file.write(element)
                    on_frame()
                    # The first frames may be plainer than all others.
                    _check_size(path, file.tell(), "has come to")
                file.write(tail)
            partial.replace(path)
        except OSError as error:
            raise unwritable(path, "out", error) from error
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def _check_replaceable(path: Path) -> None:
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder; give {option('out')} a file in it.")
        if not path.exists() or (path.is_file() and _GENERATOR in _beginning(path)):
            return
    except OSError as error:
        raise unwritable(path, "out", error) from error
    raise UserError(f"{path} was not written by this command; move it away, or give another {option('out')}.")


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1 << 14)


def _check_size(path: Path, num_bytes: int, verb: str) -> None:
    if num_bytes > MOST_BYTES:
        raise UserError(
            f"{path} {verb} {size_in_words(num_bytes)}, and browsers open no page above {size_in_words(MOST_BYTES)} "
            f"well; take fewer frames with {option('every', 2)} or {option('last')}, smaller ones with "
            f"{option('max_size', 640)}, or coarser depth with {option('depth_bits', 12)}."
        )


def _forecast(stored: Stored, path: Path, frames: range, size: Size, packing: Packing, num_bytes: int) -> str:
    """What is said before the file is written."""
    whole = Size(stored.height, stored.width)
    smaller = ""
    if size != whole:
        longest = max(stored.height, stored.width)
        smaller = f" instead of {whole.width}x{whole.height}"
        if longest <= MOST_LONGEST:
            smaller += f" ({option('max_size', longest)} keeps all of it)"
    lossy = ""
    if stored.is_lossy:
        lossy = f", a lossy video: exact depth needs a run with {option('outputs', 'depth.mp4,input.mp4,npz')}"
    return (
        f"{path}: about {size_in_words(num_bytes)}, {_count(frames, stored)}, {size.width}x{size.height}{smaller}, "
        f"depth within {depth_error(packing.bits):.1e} of {stored.depth_path.name}{lossy}"
    )


def _count(frames: range, stored: Stored) -> str:
    count = f"{len(frames)} frame{'s' if len(frames) != 1 else ''}"
    return count if len(frames) == stored.num_frames else f"{count} of {stored.num_frames}"


def _packed(stored: Stored, frames: range, size: Size, bits: int) -> Generator[bytes, None, None]:
    """The elements of all frames, several of which are packed side by side."""

    def pack(depth: NDArray[np.float32], image: NDArray[np.uint8]) -> bytes:
        packed = b64encode(pack_depth(depth, size, bits)), b64encode(pack_picture(image, size))
        return b'<script type="text/plain">%b %b</script><script>%b</script>\n' % (*packed, _TAKE.encode())

    pending: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(num_cores(), "view") as pool:
        both = zip(stored.depth(), stored.images(), strict=True)
        for number, (depth, image) in enumerate(islice(both, frames[-1] + 1)):
            if number not in frames:
                continue
            if len(pending) >= 2 * num_cores():
                yield pending.popleft().result()
            pending.append(pool.submit(pack, depth, image))
        while pending:
            yield pending.popleft().result()


def _page(stored: Stored, lens: Lens, frames: range, packing: Packing) -> tuple[bytes, bytes]:
    """All before the frames, and all behind them."""
    scripts = [_read(name) for name in _SCRIPTS]
    style = _read("page.css")
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(map(_allowed, (*scripts, _TAKE)))}",
            f"style-src {_allowed(style)}",
            "worker-src blob:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    # In JSON, < may stand only in strings. Written like this, none of them ends the element.
    about = json.dumps(_about(stored, lens, frames, packing)).replace("<", "\\u003c")
    parts = {
        "policy": policy,
        "title": html.escape(text(stored.name)),
        "style": style,
        "data": f'<script type="application/json" id="about">{about}</script>\n'
        f'<script type="text/plain" id="unpacker">{_read("unpack.js")}</script>',
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _read("index.html"))
    return page.encode(), b"</body>\n</html>\n"


def _read(name: str) -> str:
    """A file of the page, with ends of lines as browsers count them in checksums."""
    return (_STATIC / name).read_text(encoding="utf-8")


def _allowed(contents: str) -> str:
    """What a Content-Security-Policy has of an element whose contents may be run, or used."""
    return f"'sha256-{b64encode(sha256(contents.encode()).digest()).decode()}'"


def _about(stored: Stored, lens: Lens, frames: range, packing: Packing) -> dict[str, Any]:
    """What the page knows of the result, for `static/page.js`."""
    size = packing.size(stored)
    times = [stored.times[number] for number in frames]
    following = frames[-1] + frames.step
    end = stored.times[following] if following < stored.num_frames else stored.seconds
    starts = [shot["start_frame"] for shot in stored.record["shots"]]
    # A pixel's shape, where rounding a smaller size has changed it.
    shape = stored.pixel_aspect * stored.width * size.height / (stored.height * size.width)
    return {
        "name": text(stored.name),
        "width": size.width,
        "height": size.height,
        "pixelAspect": float(shape),
        "bits": packing.bits,
        "numFrames": stored.num_frames,
        "numbers": list(frames),
        "times": times,
        "end": max(end, times[-1]),
        "shots": sorted({_place(start, frames) for start in starts} - {len(frames)}),
        "lens": {"focal": lens.focal, "near": lens.near, "far": lens.far},
        "isMetric": stored.lens is not None,
        "colormap": stored.record["options"]["colormap"],
        "colours": {name: b64encode(table(name).tobytes()).decode() for name in COLORMAPS},
        "facts": f"{_count(frames, stored)}, {size.width}x{size.height}, {stored.fps:.5g} frames a second",
        "details": list(_details(stored, frames, packing)),
    }


def _place(start: int, frames: range) -> int:
    """Of the first frame from `start` on, among those that are taken."""
    return min(max(-(-(start - frames.start) // frames.step), 0), len(frames))


def _details(stored: Stored, frames: range, packing: Packing) -> Iterator[tuple[str, str]]:
    """What a person may want to know of the result: what it is, and what of it."""
    record, size = stored.record, packing.size(stored)
    model, source = record["model"], record["source"]
    yield "Video", Path(source["path"]).name
    yield "Model", f"{model['name']}{', a small one for demonstration' if record.get('demonstration') else ''}"
    if "created" in record:
        yield "Made", str(record["created"])
    yield "Depth", _exactness(stored, packing.bits)
    if stored.lens is None:
        words = (
            "Larger depth is nearer. Its scale and shift are unknown: the focal length, the nearest and the farthest "
            "distance are yours to choose."
        )
    else:
        words = "In metres, as fitted to known depth."
    yield "Distance", words
    if record["options"].get("range") == "shot" and len(record["shots"]) > 1:
        yield "Shots", "Each has a range of depth of its own: distances of different shots do not compare."
    if (size.height, size.width) != (stored.height, stored.width):
        yield "Size", f"Taken from {stored.width}x{stored.height} without mixing pixels of depth."
    if len(frames) < stored.num_frames:
        step = f", in steps of {frames.step}" if frames.step > 1 else ""
        yield "Frames", f"{frames[0]} to {frames[-1]} of 0 to {stored.num_frames - 1}{step}."
    notes: Sequence[str] = source.get("notes", ())
    yield from (("Note", str(note)) for note in notes)


def _exactness(stored: Stored, bits: int) -> str:
    """How near the page's depth is to what the model gave."""
    words = f"{bits} bits: within {depth_error(bits):.2g} of {stored.depth_path.name}"
    if stored.lens:
        return f"{words}, in shares of 1/distance between the farthest and the nearest."
    if stored.is_lossy:
        return f"{words}, which is a lossy video."
    if stored.depth_error:
        return f"{words}, which is within {stored.depth_error:.2g} of what the model gave."
    return f"{words}, which has what the model gave."
