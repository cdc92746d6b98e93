"""What most tests stand on: a random checkpoint, its reference and its engines. Made once a run, from scratch."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

from dc_export import export_onnx
from dc_rt import DepthCrafter
from dc_rt.engine.discovery import BUNDLED
from depthcrafter import DepthCrafterPipeline, load_pipeline, make_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders (base, unet) of a tiny random checkpoint, other weights than the bundled engine set has."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"), "tiny", seed=1)


@pytest.fixture(scope="session")
def reference(checkpoint: tuple[Path, Path]) -> DepthCrafterPipeline:
    return load_pipeline(*checkpoint)


@pytest.fixture(scope="session")
def engines(checkpoint: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint's engine set, freshly exported."""
    folder = tmp_path_factory.mktemp("engines") / "tiny"
    export_onnx(*checkpoint, folder, report=lambda message: None)
    return folder


@pytest.fixture(scope="session")
def model(engines: Path) -> DepthCrafter:
    return DepthCrafter.load(engines)


@pytest.fixture(scope="session")
def bundled() -> DepthCrafter:
    """The engine set that users get."""
    return DepthCrafter.load(BUNDLED)


@pytest.fixture(autouse=True)
def _away_from_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test in an empty folder, so that none finds ./engines or leaves files behind."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("DC_RT_ENGINES", raising=False)
