"""What the graphs of an engine set are made from, as one key: while it stays, they need not be exported again."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from dc_rt.engine import Manifest
from dc_rt.errors import UserError
from depthcrafter.source import CONFIGS, NETWORKS, Checkpoint, Location

# The runtime's modules change nothing in a graph, but for what manifests say.
_PACKAGES = ("dc_export", "depthcrafter")
# What is read of a checkpoint: files of these kinds, a base's in these folders, and a UNet's beside one another.
_READ = (".json", ".safetensors")
_PARTS = sorted({network.subfolder for network in NETWORKS.values() if network.subfolder} | CONFIGS.keys())
_LIBRARIES = ("torch", "diffusers", "transformers", "onnxscript", "onnx", "onnx-ir")


def versions_of_the_exporter() -> dict[str, str]:
    """Of what makes the graphs; without what is not installed, as this package itself where its checkout is run."""
    versions = {}
    for package in ("depthcrafter-rt", *_LIBRARIES):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def key_of(checkpoint: Checkpoint, **options: Any) -> str:
    """SHA-256 of a checkpoint's files, the sources that export it, the libraries' versions, and options."""
    versions = {name: version for name, version in versions_of_the_exporter().items() if name in _LIBRARIES}
    places = [_contents(checkpoint.base, _PARTS), _contents(checkpoint.unet, ["."])]
    return _sha256(json.dumps([places, _sources("dc_export.export"), versions, options], sort_keys=True))


def up_to_date(folder: Path, key: str) -> Manifest | None:
    """The manifest of the set in `folder`, if its graphs are whole and made from what `key` says."""
    with suppress(UserError):
        manifest = Manifest.read(folder)
        if manifest.made_from == key:
            manifest.check_contents(folder)
            return manifest
    return None


def _contents(location: Location, folders: Iterable[str]) -> str:
    """What the hub calls a commit, or the contents of the files in `folders`, which alone are read.

    Beside them a base may have far larger ones, such as all of its weights in one.
    """
    path = location.path
    if location.revision:
        return location.revision
    files = [path]
    if path.is_dir():
        files = [each for folder in folders for suffix in _READ for each in (path / folder).glob(f"*{suffix}")]
    digests = []
    for each in sorted(files):
        with each.open("rb") as file:
            digests.append(f"{each.relative_to(path).as_posix()} {hashlib.file_digest(file, 'sha256').hexdigest()}")
    return _sha256("\n".join(digests))


@functools.cache
def _sources(module: str) -> str:
    """Of a module and of all that it imports of our packages, without comments and docstrings."""
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name.partition(".")[0] not in _PACKAGES:
            continue
        path = _path(name)
        if path is None:  # what is imported is no module, but in one
            waiting.append(name.rpartition(".")[0])
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        waiting += _imports(tree)
        found[name] = _sha256(_code(tree))
    return _sha256(json.dumps(found, sort_keys=True))


def _path(module: str) -> Path | None:
    package, _, name = module.rpartition(".")
    if not package:
        spec = importlib.util.find_spec(name)
        return Path(spec.origin) if spec and spec.origin else None
    above = _path(package)
    if above is None or above.name != "__init__.py":
        return None
    places = (above.parent / f"{name}.py", above.parent / name / "__init__.py")
    return next((place for place in places if place.is_file()), None)


def _imports(tree: ast.AST) -> Iterator[str]:
    """Names of all that is imported anywhere in a module, absolute as all of ours are."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _code(tree: ast.AST) -> str:
    """A syntax tree without docstrings, as text: it has no comments either."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                body[0:1] = [] if len(body) > 1 else [ast.Pass()]
    return ast.dump(tree)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
