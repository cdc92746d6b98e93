"""Which size of a video runs on which card, and how: a table made from what the manifests of built engines say.

    python -m bench.speed.memory_table engines/depthcrafter-film engines/depthcrafter-film-low-memory-streaming

Nothing is run: weights and workspace are the builder's count, arrays follow from the frames, and what CUDA takes is an
estimate (`dc_rt.engine.memory`). A card of 8 GB has 8 GiB, of which one is left to the system.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dc_rt.engine.manifest import FLAVOURS, Manifest, Shape
from dc_rt.engine.memory import gpu_need, offloads_of
from dc_rt.errors import UserError

CARDS_GB = (8, 12, 16, 24)
SYSTEM_GB = 1
WINDOW = 110


@dataclass(frozen=True)
class Way:
    """A set and an offload, and what the `make engines` of the set was told."""

    built: Manifest
    cpu_offload: str

    @property
    def words(self) -> str:
        """How it is asked for."""
        switches = ["LOW_MEMORY=1"] if self.built.low_memory else []
        if self.cpu_offload == "sequential":
            switches.append("STREAMING=1")
        made = f"`{' '.join(switches)}`, " if switches else ""
        return f"{made}`{self.cpu_offload}`"


def ways_of(sets: Sequence[Manifest]) -> list[Way]:
    """All ways to run these sets, the fastest first: to stream weights takes more time than to save workspace."""
    found = [Way(built, offload) for built in sets for offload in offloads_of(built)]
    return sorted(found, key=lambda way: (way.cpu_offload == "sequential", way.built.low_memory))


def cell(ways: Sequence[Way], shape: Shape, free_bytes: float) -> str:
    """The first way that has room, and the GB that it needs; a dash where none has."""
    for way in ways:
        need = gpu_need(way.built, *shape.best, WINDOW, way.cpu_offload)
        if need is not None and need.total <= free_bytes:
            return f"{way.words} {need.total / 1e9:.1f}"
    return "-"


def table(sets: Sequence[Manifest]) -> Iterator[str]:
    """The table in Markdown, a line a shape."""
    ways = ways_of(sets)
    yield f"| size | {' | '.join(f'{card} GB' for card in CARDS_GB)} |"
    yield f"|---|{'---|' * len(CARDS_GB)}"
    for shape in sets[0].profile.shapes:
        cells = (cell(ways, shape, (card - SYSTEM_GB) << 30) for card in CARDS_GB)
        yield f"| {shape} | {' | '.join(cells)} |"


def read_built(folder: Path) -> Manifest:
    """The engines of a set; raises `UserError` where it has none."""
    manifest = Manifest.read(folder)
    for flavour in FLAVOURS:
        if flavour in manifest.builds:
            return manifest.built(flavour)
    raise UserError(f"{folder} has no engines of TensorRT; build them with `dc-export build {folder}`.")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engines", nargs="+", type=Path, metavar="ENGINES", help="engine sets of one model and profile")
    try:
        print(*table([read_built(folder) for folder in parser.parse_args().engines]), sep="\n")
    except UserError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
