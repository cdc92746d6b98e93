"""The manifest of an engine set: what the files are, where they come from and what they can run.

An engine set is a folder: `manifest.json`, the files of four ONNX graphs, and beside them the TensorRT engines that
were built from them. Whoever loads it checks all of what is opened first, since an engine file is code: it runs with
the rights of whoever loads it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dc_rt.errors import UserError

FORMAT = 1
MANIFEST = "manifest.json"
LIBRARY_NAMES = {"tensorrt": "TensorRT", "rtx": "TensorRT-RTX"}
FLAVOURS = tuple(LIBRARY_NAMES)
GRAPHS = ("clip_encoder", "vae_encoder", "denoiser", "vae_decoder")
SIZE_MULTIPLE = 64


@dataclass(frozen=True)
class Range:
    """Smallest, best and largest value of a dimension."""

    min: int
    opt: int
    max: int

    def __contains__(self, value: int) -> bool:
        return self.min <= value <= self.max

    def __str__(self) -> str:
        return f"{self.min}" if self.min == self.max else f"{self.min} to {self.max}"


@dataclass(frozen=True)
class Profile:
    """The sizes that an engine set is made for; height and width in pixels, frames of one window."""

    name: str
    height: Range
    width: Range
    frames: Range

    def check_size(self, height: int, width: int) -> None:
        """Raise `UserError` for frames that the engines cannot run."""
        if height % SIZE_MULTIPLE or width % SIZE_MULTIPLE:
            raise UserError(
                f"Height and width must be multiples of {SIZE_MULTIPLE}, not {height}x{width}; "
                "resize the frames, or let `dc-rt infer` do it."
            )
        if height not in self.height or width not in self.width:
            raise UserError(
                f"These engines (profile {self.name}) run heights {self.height} and widths {self.width}, and the video "
                f"is {height}x{width} (height x width); choose another --max-res or --dataset, or make engines of a "
                "profile that covers it (see engines/profiles.toml; large is ONNX Runtime's)."
            )

    def check_window(self, window_size: int) -> None:
        """Raise `UserError` for a window that the engines cannot run."""
        if window_size > self.frames.max:
            raise UserError(
                f"These engines (profile {self.name}) run windows of up to {self.frames.max} frames, "
                f"not {window_size}; try --window-size {self.frames.max}."
            )


@dataclass(frozen=True)
class Model:
    """What the graphs were exported from; folders or hub ids, and the hub's commits where there are any."""

    name: str
    base: str
    unet: str
    base_revision: str | None
    unet_revision: str | None
    embedding_dim: int
    latent_channels: int


@dataclass(frozen=True)
class File:
    """A file of the set, by its plain name, with its size in bytes and the SHA-256 of its contents."""

    name: str
    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> File:
        """Record the file at `path` as it is now."""
        return cls(path.name, path.stat().st_size, _sha256(path))


@dataclass(frozen=True)
class BuiltEngine:
    """A TensorRT engine of one graph.

    `key` is a hash of all that it was built from and with, so that only what changed is built again. Its memory, in
    bytes, is what the builder reports: the weights, and the workspace of one run at the profile's largest shape.
    """

    file: File
    key: str
    seconds: float
    weights_bytes: int
    activation_bytes: int


@dataclass(frozen=True)
class Build:
    """The engines of one flavour of TensorRT, and where they run.

    `version` is the library's, in full; `compute_capabilities` are those of the GPUs, as "8.6", where "12.0+" stands
    for this one and later ones. While engines are being built, some of the four are missing.
    """

    version: str
    platform: str
    compute_capabilities: tuple[str, ...]
    flags: tuple[str, ...]
    profile: Profile
    engines: Mapping[str, BuiltEngine]

    @property
    def whole(self) -> bool:
        """Whether all four engines are there."""
        return set(self.engines) == set(GRAPHS)


@dataclass(frozen=True)
class Manifest:
    """Contents of `manifest.json`.

    `graphs` gives for each of the four graphs its files: first the one to open, then those that it refers to.
    `flavour` is what these files are: "onnx", or for what `built` gives "tensorrt" or "rtx". `versions` are of what
    made them. `target` is what the graphs were written for, "onnx" or "tensorrt", and `low_memory` whether in the form
    that trades time for memory. `builds` has the TensorRT engines by flavour.
    """

    model: Model
    flavour: str
    precision: str
    opset: int
    profile: Profile
    graphs: Mapping[str, tuple[File, ...]]
    versions: Mapping[str, str]
    created: str
    format: int = FORMAT
    target: str = "onnx"
    low_memory: bool = False
    builds: Mapping[str, Build] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Manifest:
        """Read the manifest of an engine set, without opening the other files.

        Raises:
            UserError: there is none, it is damaged, or it is of another format version.
        """
        path = Path(folder) / MANIFEST
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(
                f"There is no engine set in {folder} (no {MANIFEST}); give a folder that `dc-export onnx` wrote, "
                "or leave --engines out."
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}); export the engine set again.") from error
        found = record.get("format") if isinstance(record, dict) else None
        if found != FORMAT:
            raise UserError(
                f"The engine set in {folder} has format version {found}, and this dc-rt reads version {FORMAT}; "
                "export it again with the dc-export of this version (dc-export onnx)."
            )
        try:
            return _manifest_from(record)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error!r}); export the engine set again.") from error

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write `manifest.json`; last of all files, since its presence says that the set is whole."""
        path = Path(folder) / MANIFEST
        draft = path.with_suffix(".json.part")
        draft.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", encoding="utf-8")
        draft.replace(path)

    def built(self, flavour: str) -> Manifest:
        """The same set, with the engines of `flavour` for graphs and the profile that they were built for.

        Raises:
            UserError: the set has no such engines, or not all four.
        """
        build = self.builds.get(flavour)
        if build is None or not build.whole:
            raise UserError(
                f"This engine set has {'no' if build is None else 'not all'} {LIBRARY_NAMES[flavour]} engines; build "
                f"them with `dc-export build ENGINES --flavour {flavour}`, or use --backend onnx."
            )
        graphs = {graph: (build.engines[graph].file,) for graph in GRAPHS}
        return dataclasses.replace(self, flavour=flavour, profile=build.profile, graphs=graphs)

    def variants(self) -> Iterator[Manifest]:
        """What the set can be run as: the ONNX graphs, then the flavours of TensorRT of which it has all engines."""
        yield self
        for flavour, build in self.builds.items():
            if build.whole:
                yield self.built(flavour)

    def file(self, graph: str) -> str:
        """Name of the file to open for `graph`."""
        return self.graphs[graph][0].name

    def check_complete(self, folder: str | os.PathLike[str]) -> None:
        """Raise `UserError` unless every file is there in its right size. Quick: reads no contents."""
        for file in self._files():
            path = Path(folder) / file.name
            if not path.is_file():
                raise UserError(f"The engine set in {folder} lacks {file.name}; {self._make_again()}.")
            if path.stat().st_size != file.bytes:
                raise UserError(
                    f"{path} has {path.stat().st_size} bytes where its manifest says {file.bytes}; "
                    f"copy it again, or {self._make_again()}."
                )

    def check_contents(self, folder: str | os.PathLike[str]) -> None:
        """Raise `UserError` unless every file is there, byte for byte what the manifest says."""
        self.check_complete(folder)
        for file in self._files():
            if _sha256(Path(folder) / file.name) != file.sha256:
                raise UserError(
                    f"{Path(folder) / file.name} was changed after it was made (its SHA-256 is not the manifest's); "
                    f"copy it again, or {self._make_again()}."
                )

    def _make_again(self) -> str:
        if self.flavour == "onnx":
            return "export the engine set again (dc-export onnx)"
        return f"build the engines again (dc-export build ENGINES --flavour {self.flavour})"

    def _files(self) -> list[File]:
        return [file for files in self.graphs.values() for file in files]


def _manifest_from(record: dict[str, Any]) -> Manifest:
    graphs = {name: tuple(_file_from(file) for file in record["graphs"][name]) for name in GRAPHS}
    if not all(graphs.values()):
        raise ValueError("a graph without files")
    builds = record.get("builds", {})
    return Manifest(
        model=Model(**record["model"]),
        flavour=record["flavour"],
        precision=record["precision"],
        opset=int(record["opset"]),
        profile=_profile_from(record["profile"]),
        graphs=graphs,
        versions=dict(record["versions"]),
        created=record["created"],
        target=record.get("target", "onnx"),
        low_memory=record.get("low_memory", False),
        builds={flavour: _build_from(builds[flavour]) for flavour in FLAVOURS if flavour in builds},
    )


def _build_from(record: dict[str, Any]) -> Build:
    engines = {
        graph: BuiltEngine(**engine | {"file": _file_from(engine["file"])})
        for graph, engine in record["engines"].items()
        if graph in GRAPHS
    }
    # Whatever they are in the file, these are compared as text.
    words = {name: str(record[name]) for name in ("version", "platform")}
    lists = {name: tuple(map(str, record[name])) for name in ("compute_capabilities", "flags")}
    return Build(**record | words | lists | {"profile": _profile_from(record["profile"]), "engines": engines})


def _profile_from(record: dict[str, Any]) -> Profile:
    return Profile(record["name"], *(Range(**record[side]) for side in ("height", "width", "frames")))


def _file_from(record: dict[str, Any]) -> File:
    file = File(**record)
    # A manifest comes from elsewhere: it must not lead out of its folder.
    if Path(file.name).name != file.name or file.name in ("", ".", ".."):
        raise ValueError(f"file name {file.name!r}")
    return file


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
