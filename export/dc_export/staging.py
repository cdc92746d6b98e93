"""How a set in a folder is replaced: made beside the old one, in a hidden folder inside it, and swapped at the end.

The manifest is what says which files are the set's. It is replaced in one step, and never names a file that is not
there or not yet whole: whenever a swap ends, by Ctrl-C, a kill or a full disk, the set is the old or the new one.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dc_rt.engine import GRAPHS, MANIFEST, File, Manifest
from dc_rt.engine.manifest import Build
from dc_rt.errors import UserError
from dc_rt.lock import Held, locked

STAGING = ".export"  # not a name that a search for sets finds: it lies in a set
LOCK = ".lock"
# What graphs are called in the middle of a swap, and weights that are in files of their own.
PASSING, DRAFT, WEIGHTS = "next.onnx", "onnx.part", "data"
_LEFTOVER = re.compile(
    rf"({'|'.join(GRAPHS)})\.({PASSING}|{DRAFT}|onnx\.data|[0-9a-f]{{16}}\.{WEIGHTS})|{MANIFEST}\.part"
)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keep other processes from writing to the set in `folder` meanwhile. Those that read it are not kept out.

    Raises:
        UserError: another one is at it.
    """
    try:
        with locked(folder / LOCK):
            yield
    except Held:
        raise UserError(
            f"Another dc-export is working on the engine set in {folder}; wait until it is done, then run this again."
        ) from None


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """An empty folder to make a set in that is to replace the one in `folder`, by `swap`; removed at the end.

    `folder` is made if need be, and removed again if nothing came into it.

    Raises:
        UserError: another process writes to the set, or `folder` cannot hold one.
        OSError: the disk refuses.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with only_one(folder):
            for name in (MANIFEST, *(f"{graph}.onnx" for graph in GRAPHS)):
                if (folder / name).is_dir():
                    raise UserError(f"{folder / name} is a folder, in the place of a file; give another --out.")
            staging = folder / STAGING
            tidy(folder)
            staging.mkdir()
            try:
                yield staging
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    finally:
        if made:
            with suppress(OSError):
                folder.rmdir()  # when nothing is in it


def swap(staging: Path, folder: Path, manifest: Manifest) -> Manifest:
    """Put the files of `manifest`, which are in `staging`, in the place of the set in `folder`.

    Engines of graphs that stay the same are kept, and those of others are no longer the set's: `dc-export build` builds
    them again.

    Returns:
        The manifest, with the engines that are kept.
    """
    old = _read(folder)
    manifest = dataclasses.replace(manifest, builds=_kept(old, manifest))
    graphs = dict(manifest.graphs)
    for graph, (file, *weights) in manifest.graphs.items():
        # Weights in files of their own are called by their contents, so that none takes the place of another.
        for data in weights:
            (staging / data.name).replace(folder / data.name)
        if old is None or old.graphs[graph] != manifest.graphs[graph] or not _is_there(folder, file):
            # The old manifest names a file of this name: until it is replaced, the new one has another.
            passing = dataclasses.replace(file, name=f"{graph}.{PASSING}")
            (staging / file.name).replace(folder / passing.name)
            graphs[graph] = (passing, *weights)
    dataclasses.replace(manifest, graphs=graphs).write(folder)
    tidy(folder)
    return manifest


def tidy(folder: Path) -> None:
    """End a swap: give the set's graphs their names, and remove what is no longer its own; also one that was killed."""
    shutil.rmtree(folder / STAGING, ignore_errors=True)
    manifest = _read(folder)
    if manifest is not None:
        graphs = dict(manifest.graphs)
        for graph, (file, *weights) in manifest.graphs.items():
            if file.name == f"{graph}.{PASSING}":
                named = dataclasses.replace(file, name=f"{graph}.onnx")
                draft = folder / f"{graph}.{DRAFT}"
                shutil.copyfile(folder / file.name, draft)  # the manifest still names the one that is copied
                draft.replace(folder / named.name)
                graphs[graph] = (named, *weights)
        if graphs != manifest.graphs:
            manifest = dataclasses.replace(manifest, graphs=graphs)
            manifest.write(folder)
    elif (folder / MANIFEST).exists():
        return  # of another version perhaps, and which files are its own is not for us to tell
    ours = {file.name for files in manifest.graphs.values() for file in files} if manifest else set()
    for path in folder.iterdir():
        if _LEFTOVER.fullmatch(path.name) and path.name not in ours:
            path.unlink()


def _is_there(folder: Path, file: File) -> bool:
    path = folder / file.name
    return path.is_file() and File.of(path) == file


def _read(folder: Path) -> Manifest | None:
    """The set that is there, if it is one that can be read."""
    try:
        return Manifest.read(folder)
    except UserError:
        return None


def _kept(old: Manifest | None, new: Manifest) -> dict[str, Build]:
    """The engines of `old` whose graphs are those of `new`: all that an engine is made from is in its graph's files."""
    if old is None:
        return {}
    same = {graph for graph in GRAPHS if old.graphs[graph] == new.graphs[graph]}
    kept = {
        flavour: dataclasses.replace(
            build, engines={graph: engine for graph, engine in build.engines.items() if graph in same}
        )
        for flavour, build in old.builds.items()
    }
    return {flavour: build for flavour, build in kept.items() if build.engines}
