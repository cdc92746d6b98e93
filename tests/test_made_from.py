"""Graphs are exported again when something that they are made from has changed, and not before."""

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dc_export import export_onnx, made_from
from dc_export.made_from import key_of
from dc_rt.engine import Manifest
from depthcrafter.source import Checkpoint, Location


class Exported(Exception):
    """An export has begun."""


@dataclass
class Again:
    """Exports a copy of the set a second time."""

    base: Path
    unet: Path
    folder: Path

    def __call__(self, **options: Any) -> list[str] | None:
        """What it says, or None if an export begins."""
        said: list[str] = []
        try:
            export_onnx(self.base, self.unet, self.folder, report=said.append, **options)
        except Exported:
            return None
        return said


@pytest.fixture
def again(checkpoint, engines, tmp_path, monkeypatch):
    def begin(*arguments):
        raise Exported

    monkeypatch.setattr("dc_export.export._export", begin)
    base, unet = checkpoint
    return Again(base, unet, shutil.copytree(engines, tmp_path / "tiny"))


def test_what_is_up_to_date_is_kept_unless_it_is_forced(again, engines):
    assert again() == ["the graphs are up to date"]
    assert Manifest.read(again.folder) == Manifest.read(engines)
    assert again(force=True) is None


@pytest.mark.parametrize(
    "options", [{"precision": "fp16"}, {"target": "tensorrt"}, {"profile": "512x256"}, {"name": "x"}]
)
def test_other_options_make_other_graphs(again, options):
    assert again(**options) is None


def test_another_version_of_a_library_makes_other_graphs(again, monkeypatch):
    monkeypatch.setattr(made_from, "versions_of_the_exporter", lambda: {"diffusers": "0.1"})
    assert again() is None


@pytest.mark.parametrize("name", ["denoiser.onnx", "manifest.json"])
def test_a_set_that_is_not_whole_is_exported(again, name):
    (again.folder / name).unlink()
    assert again() is None


def test_a_changed_graph_is_exported(again):
    with (again.folder / "denoiser.onnx").open("r+b") as file:
        file.write(b"x")
    assert again() is None


def test_a_set_of_before_keys_were_written_is_exported(again):
    dataclasses.replace(Manifest.read(again.folder), made_from=None).write(again.folder)
    assert again() is None


def test_other_weights_have_another_key(checkpoint, tmp_path):
    base = shutil.copytree(checkpoint[0], tmp_path / "base")
    found = {key_of(Checkpoint(Location(base), Location(base / "unet")))}
    (base / "all_of_it.safetensors").write_bytes(b"which nobody reads")
    assert {key_of(Checkpoint(Location(base), Location(base / "unet")))} == found
    with (base / "unet/diffusion_pytorch_model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    found.add(key_of(Checkpoint(Location(base), Location(base / "unet"))))
    found |= {key_of(Checkpoint(Location(base, commit), Location(base / "unet"))) for commit in ("a" * 40, "b" * 40)}
    assert len(found) == 4


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Function (**modules) -> key of the sources of a package of these modules, from `first` on."""
    monkeypatch.setattr(made_from, "_PACKAGES", ("parcel",))
    monkeypatch.syspath_prepend(tmp_path)

    def key(**modules):
        (tmp_path / "parcel").mkdir(exist_ok=True)
        for name, text in {"__init__": "", **modules}.items():
            (tmp_path / "parcel" / f"{name}.py").write_text(text)
        made_from._sources.cache_clear()
        return made_from._sources("parcel.first")

    yield key
    made_from._sources.cache_clear()


def test_comments_and_docstrings_make_no_other_key_and_code_that_is_imported_does(package):
    first = "from parcel.second import f\n"
    second = "def f():\n    return 1\n"
    key = package(first=first, second=second, third="x = 1")
    assert package(first=first, second=f'"""It."""\n{second}', third="x = 1") == key
    assert package(first=first, second='def f():\n    """It."""\n    # Why.\n    return 1\n', third="x = 2") == key
    assert package(first=first, second="def f():\n    return 2\n", third="x = 1") != key
