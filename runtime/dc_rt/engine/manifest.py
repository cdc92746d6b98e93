"""The manifest of an engine set: what the files are, where they come from and what they can run.

An engine set is a folder: `manifest.json`, the files of four ONNX graphs, and beside them the TensorRT engines that
were built from them. Whoever loads it checks all of what is opened first, since an engine file is code: it runs with
the rights of whoever loads it.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dc_rt.errors import UserError, option
from dc_rt.library import LIBRARY_NAMES
from dc_rt.options import SIZE_MULTIPLE

FORMAT = 1
MANIFEST = "manifest.json"
FLAVOURS = tuple(LIBRARY_NAMES)
GRAPHS = ("clip_encoder", "vae_encoder", "denoiser", "vae_decoder")
# Beyond these a number in a manifest is no number of pixels, frames or bytes, and text is no name.
MAX_SIDE, MAX_COUNT, MAX_WORD = 1 << 20, 1 << 62, 255
# Control characters and ends of lines: what is read is shown in one line of a terminal.
NOT_IN_A_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# Most sets that refuse a clip were made for one shape alone.
OTHER_PROFILE = (
    "make engines of a profile that covers it (`make engines` has the shapes of film, engines/profiles.toml the "
    "others; large is ONNX Runtime's)"
)


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
class Shape:
    """Heights and widths in pixels that engines run."""

    height: Range
    width: Range

    @property
    def is_fixed(self) -> bool:
        """Whether it is one height and one width."""
        return self.height.min == self.height.max and self.width.min == self.width.max

    @property
    def best(self) -> tuple[int, int]:
        """Height and width that engines are tuned for."""
        return self.height.opt, self.width.opt

    def takes(self, height: int, width: int) -> bool:
        """Whether it has such frames."""
        return height in self.height and width in self.width

    def __str__(self) -> str:
        if self.is_fixed:
            return f"{self.width.min}x{self.height.min}"
        return f"{self.width.min}x{self.height.min} to {self.width.max}x{self.height.max}"


@dataclass(frozen=True)
class Profile:
    """The sizes that an engine set is made for; height and width in pixels, frames of one window.

    The first shape is `height` by `width`, and `others` follow it: an engine has an optimisation profile for each.
    """

    name: str
    height: Range
    width: Range
    frames: Range
    others: tuple[Shape, ...] = ()

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """All shapes, the one to prefer first."""
        return (Shape(self.height, self.width), *self.others)

    def shape_of(self, height: int, width: int) -> int | None:
        """The number of the first shape that has such frames; None where none has."""
        return next((number for number, shape in enumerate(self.shapes) if shape.takes(height, width)), None)

    def misfit(self, height: int, width: int, window_size: int = 1) -> str:
        """Why engines of this profile cannot run such frames or such a window, in a clause; empty where they can."""
        misfits = []
        if self.shape_of(height, width) is None:
            what = (
                f"run {', '.join(map(str, self.shapes))} (width x height), and the video is {width}x{height}"
                if self.others
                else f"run heights {self.height} and widths {self.width}, and the video is {height}x{width} "
                "(height x width)"
            )
            misfits.append(what)
        if window_size > self.frames.max:
            misfits.append(f"run windows of up to {self.frames.max} frames, not {window_size}")
        return f"These engines (profile {self.name}) {'; they '.join(misfits)}" if misfits else ""

    def check_size(self, height: int, width: int) -> None:
        """Raise `UserError` for frames that the engines cannot run."""
        if height % SIZE_MULTIPLE or width % SIZE_MULTIPLE:
            raise UserError(
                f"Height and width must be multiples of {SIZE_MULTIPLE}, not {height}x{width}; "
                "resize the frames, or let `dc-rt infer` do it."
            )
        if misfit := self.misfit(height, width):
            raise UserError(f"{misfit}; {OTHER_PROFILE}.")

    def check_window(self, window_size: int) -> None:
        """Raise `UserError` for a window that the engines cannot run."""
        if window_size > self.frames.max:
            misfit = self.misfit(self.height.min, self.width.min, window_size)
            raise UserError(f"{misfit}; try {option('window_size', self.frames.max)}.")


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
    bytes, is what the builder reports: the weights, and the workspace of one run at the profile's largest shape; then
    the workspace of each of the profile's shapes, in their order, where the builder has said it.
    """

    file: File
    key: str
    seconds: float
    weights_bytes: int
    activation_bytes: int
    shape_activation_bytes: tuple[int, ...] = ()

    def workspace_at(self, shape: int) -> int:
        """Bytes of workspace at a shape of the profile, by its number; that of the largest where it is not known."""
        known = self.shape_activation_bytes
        return known[shape] if shape < len(known) else self.activation_bytes


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

    `graphs` gives for each of the four graphs its files: first the one to open, then those that it refers to. `flavour`
    is what these files are: "onnx", or for what `built` gives "tensorrt" or "rtx". `versions` are of what made them.
    `target` is what the graphs were written for, "onnx" or "tensorrt", and `low_memory` whether in the form that trades
    time for memory, `plain` in the one that does the opposite. `builds` has the TensorRT engines by flavour. `weights`
    is a hash of the checkpoint's weights, whatever the graphs' precision (see `dc_export.weights`): sets of equal ones
    are of one model. Sets that were exported before it was recorded have None, and are known to be of the same model as
    themselves alone. `made_from` is a key of all that the graphs were made from and by (see `dc_export.made_from`).
    `encoder_scaling` has the powers of two by which values in the VAE encoder are smaller than it was trained with, so
    that half precision holds them (see `dc_export.half_encoder`); none where it is in float32.
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
    weights: str | None = None
    made_from: str | None = None
    encoder_scaling: Mapping[str, int] = field(default_factory=dict)
    plain: bool = False

    @property
    def created_at(self) -> datetime.datetime:
        """When the graphs were exported; in UTC unless `created` says otherwise."""
        return _time_from(self.created)

    def is_of_the_model_of(self, other: Manifest) -> bool:
        """Whether both sets were exported from one checkpoint: of one name and origin, and of the same weights."""
        mine, theirs = (
            (manifest.model.name, manifest.model.base, manifest.model.unet, manifest.weights)
            for manifest in (self, other)
        )
        return self == other or (mine == theirs and self.weights is not None)

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Manifest:
        """Read the manifest of an engine set, without opening the other files.

        Raises:
            UserError: there is none, it is damaged, or it is of another format version.
        """
        path = Path(folder) / MANIFEST
        try:
            record = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(
                f"There is no engine set in {folder} (no {MANIFEST}); give a folder that `dc-export onnx` wrote, "
                f"or leave {option('engines')} out."
            ) from None
        except OSError as error:
            raise UserError(
                f"{path} cannot be read ({error.strerror}); give another folder, or mend this one."
            ) from error
        except (ValueError, RecursionError) as error:
            raise _damaged(path, "it is no JSON") from error
        if not isinstance(record, dict):
            raise _damaged(path, "it is no JSON object")
        found = record.get("format")
        if type(found) is not int or found != FORMAT:
            raise UserError(
                f"The engine set in {folder} has format version {_shown(found)}, and this dc-rt reads version "
                f"{FORMAT}; export it again with the dc-export of this version (dc-export onnx)."
            )
        try:
            return _manifest_from(record)
        except _Wrong as wrong:
            raise _damaged(path, str(wrong)) from None

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write `manifest.json`; last of all files, since its presence says that the set is whole."""
        path = Path(folder) / MANIFEST
        draft = path.with_suffix(".json.part")
        try:
            draft.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", encoding="utf-8")
            draft.replace(path)
        except OSError:
            with suppress(OSError):
                draft.unlink()
            raise

    def built(self, flavour: str) -> Manifest:
        """The same set, with the engines of `flavour` for graphs and the profile that they were built for.

        Raises:
            UserError: the set has no such engines, or not all four.
        """
        build = self.builds.get(flavour)
        if build is None or not build.whole:
            raise UserError(
                f"This engine set has {'no' if build is None else 'not all'} {LIBRARY_NAMES[flavour]} engines; build "
                f"them with `dc-export build ENGINES --flavour {flavour}`, or use {option('backend', 'onnx')}."
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
            try:
                size = path.stat().st_size if path.is_file() else None
            except OSError as error:
                raise _unreadable(path, error) from error
            if size is None:
                raise UserError(f"The engine set in {folder} lacks {file.name}; {self._make_again()}.")
            if size != file.bytes:
                raise UserError(
                    f"{path} has {size} bytes where its manifest says {file.bytes}; "
                    f"copy it again, or {self._make_again()}."
                )

    def check_contents(self, folder: str | os.PathLike[str]) -> None:
        """Raise `UserError` unless every file is there, byte for byte what the manifest says."""
        self.check_complete(folder)
        for file in self._files():
            path = Path(folder) / file.name
            try:
                digest = _sha256(path)
            except OSError as error:
                raise _unreadable(path, error) from error
            if digest != file.sha256:
                raise UserError(
                    f"{path} was changed after it was made (its SHA-256 is not the manifest's); "
                    f"copy it again, or {self._make_again()}."
                )

    def _make_again(self) -> str:
        if self.flavour == "onnx":
            return "export the engine set again (dc-export onnx)"
        return f"build the engines again (dc-export build ENGINES --flavour {self.flavour})"

    def _files(self) -> list[File]:
        return [file for files in self.graphs.values() for file in files]


# From here on: a manifest comes from elsewhere, so nothing in it is taken for what it should be.


class _Wrong(Exception):
    """What is wrong with a manifest, in a clause."""


def _manifest_from(record: dict[str, Any]) -> Manifest:
    manifest = Manifest(
        model=_model_from(_get(record, "model", dict)),
        flavour=_word(record, "flavour"),
        precision=_word(record, "precision"),
        opset=_count(record, "opset"),
        profile=_profile_from(_get(record, "profile", dict)),
        graphs={
            graph: tuple(_file_from(file) for file in _list(_get(record, "graphs", dict), graph, dict))
            for graph in GRAPHS
        },
        versions={name: _text(record["versions"], name) for name in _get(record, "versions", dict)},
        created=_word(record, "created"),
        target=_word(record, "target", "onnx"),
        low_memory=_get(record, "low_memory", bool, False),
        plain=_get(record, "plain", bool, False),
        builds={
            flavour: _build_from(_get(builds, flavour, dict))
            for builds in [_get(record, "builds", dict, {})]
            for flavour in FLAVOURS
            if flavour in builds
        },
        weights=_sha256_from(record, "weights") if record.get("weights") is not None else None,
        made_from=_sha256_from(record, "made_from") if record.get("made_from") is not None else None,
        encoder_scaling={
            name: _get(scaling, name, int)
            for scaling in [_get(record, "encoder_scaling", dict, {})]
            for name in scaling
        },
    )
    if manifest.flavour != "onnx":
        raise _Wrong(f"its flavour is {_shown(manifest.flavour)}, not 'onnx'")
    _time_from(manifest.created)
    for graph, files in manifest.graphs.items():
        if not files:
            raise _Wrong(f"{graph} has no file")
    names = [file.name for files in manifest.graphs.values() for file in files]
    if len(set(names)) < len(names):
        raise _Wrong("two graphs have the same file")
    return manifest


def _model_from(record: dict[str, Any]) -> Model:
    revisions = {
        name: None if record.get(name) is None else _word(record, name) for name in ("base_revision", "unet_revision")
    }
    sizes = {name: _count(record, name) for name in ("embedding_dim", "latent_channels")}
    return Model(_word(record, "name"), _text(record, "base"), _text(record, "unet"), **revisions, **sizes)  # type: ignore[arg-type]


def _build_from(record: dict[str, Any]) -> Build:
    engines = {
        graph: _engine_from(_get(record["engines"], graph, dict))
        for graph in _get(record, "engines", dict)
        if graph in GRAPHS
    }
    # Whatever they are in the file, these are compared as text.
    version, platform = (_printable(name, str(_get(record, name, object))) for name in ("version", "platform"))
    capabilities, flags = (
        tuple(_printable(name, str(value)) for value in _list(record, name, object))
        for name in ("compute_capabilities", "flags")
    )
    return Build(version, platform, capabilities, flags, _profile_from(_get(record, "profile", dict)), engines)


def _engine_from(record: dict[str, Any]) -> BuiltEngine:
    seconds = record.get("seconds")
    if type(seconds) not in (int, float) or not 0 <= seconds < MAX_COUNT:  # type: ignore[operator]  # is a number
        raise _Wrong(f"its seconds are {_shown(seconds)}")
    memory = {name: _count(record, name, least=0) for name in ("weights_bytes", "activation_bytes")}
    shapes = tuple(_list(record, "shape_activation_bytes", int) if "shape_activation_bytes" in record else ())
    if not all(type(each) is int and 0 <= each < MAX_COUNT for each in shapes):
        raise _Wrong(f"its shape_activation_bytes are {_shown(shapes)}")
    return BuiltEngine(
        _file_from(_get(record, "file", dict)),
        _text(record, "key"),
        seconds,  # type: ignore[arg-type]  # is a number
        **memory,
        shape_activation_bytes=shapes,
    )


def _profile_from(record: dict[str, Any]) -> Profile:
    name = _word(record, "name")
    height, width, frames = (_range_from(record, side) for side in ("height", "width", "frames"))
    others = [_shape_from(each) for each in (_list(record, "others", dict) if "others" in record else ())]
    return Profile(name, height, width, frames, tuple(others))


def _shape_from(record: dict[str, Any]) -> Shape:
    return Shape(_range_from(record, "height"), _range_from(record, "width"))


def _range_from(record: dict[str, Any], side: str) -> Range:
    span = Range(*(_count(_get(record, side, dict), end) for end in ("min", "opt", "max")))
    if not span.min <= span.opt <= span.max < MAX_SIDE:
        raise _Wrong(f"its profile has a {side} of {span.min} to {span.max}, best {span.opt}"[:200])
    return span


def _file_from(record: dict[str, Any]) -> File:
    name = _word(record, "name")
    # It must not lead out of its folder, on no system.
    if re.search(r"[/\\:]", name) or name in (".", ".."):
        raise _Wrong(f"it has the file name {_shown(name)}")
    return File(name, _count(record, "bytes", least=0), _sha256_from(record, "sha256"))


def _get(record: dict[str, Any], name: str, kind: type, default: Any = None) -> Any:
    """The value of `name`, of this kind; without a default it must be there."""
    if name not in record and default is not None:
        return default
    if name not in record:
        raise _Wrong(f"it lacks {name!r}")
    value = record[name]
    if not isinstance(value, kind) or (kind is not bool and kind is not object and isinstance(value, bool)):
        raise _Wrong(f"its {name} is {_shown(value)}")
    return value


def _list(record: dict[str, Any], name: str, kind: type) -> list[Any]:
    values: list[Any] = _get(record, name, list)
    for value in values:
        if not isinstance(value, kind):
            raise _Wrong(f"its {name} has {_shown(value)} in it")
    return values


def _count(record: dict[str, Any], name: str, least: int = 1) -> int:
    value: int = _get(record, name, int)
    if not least <= value < MAX_COUNT:
        raise _Wrong(f"its {name} is {_shown(value)}")
    return value


def _text(record: dict[str, Any], name: str) -> str:
    """Text that can be written wherever text can be; perhaps none."""
    return _encodable(name, _get(record, name, str))


def _word(record: dict[str, Any], name: str, default: str | None = None) -> str:
    """Text that can be printed in a line, and not none."""
    value = _printable(name, _get(record, name, str, default))
    if not value:
        raise _Wrong(f"its {name} is empty")
    return value


def _printable(name: str, value: str) -> str:
    if NOT_IN_A_LINE.search(value) or len(value) > MAX_WORD:
        raise _Wrong(f"its {name} is {_shown(value)}")
    return _encodable(name, value)


def _encodable(name: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:  # half a character
        raise _Wrong(f"its {name} is {_shown(value)}") from None
    return value


def _sha256_from(record: dict[str, Any], name: str) -> str:
    value: str = _get(record, name, str)
    if not re.fullmatch("[0-9a-f]{64}", value):
        raise _Wrong(f"its {name} is {_shown(value)}")
    return value


def _time_from(text: str) -> datetime.datetime:
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise _Wrong(f"it was created at {_shown(text)}") from None
    return time if time.tzinfo else time.replace(tzinfo=datetime.UTC)


def _shown(value: Any) -> str:
    """A value of a file in a line of its own making: short, and in ASCII."""
    try:
        text = ascii(value)
    except RecursionError:
        return "deep beyond reason"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path} is damaged ({what}); export the engine set again (dc-export onnx).")


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be read ({error.strerror}); copy it again, or give another engine set.")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
