"""What is checked of an engine set before anything in it is opened."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dc_rt import DepthCrafter, UserError
from dc_rt.engine.discovery import BUNDLED, choose_engines, list_engines
from dc_rt.engine.manifest import GRAPHS, Manifest


@pytest.fixture
def engine_set(tmp_path):
    return shutil.copytree(BUNDLED, tmp_path / "set")


def edit(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def assert_refused(folder, message):
    with pytest.raises(UserError, match=message) as error:
        DepthCrafter.load(folder)
    assert "\n" not in str(error.value)


def test_the_bundled_set_is_whole_and_unchanged(engine_set):
    Manifest.read(engine_set).check_contents(engine_set)


def test_reading_back_what_was_written_changes_nothing(engine_set, tmp_path):
    manifest = Manifest.read(engine_set)
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest


def test_a_missing_set_is_refused(tmp_path):
    assert_refused(tmp_path / "nowhere", "no engine set")
    assert_refused(tmp_path, "no engine set")


@pytest.mark.parametrize("graph", GRAPHS)
def test_an_incomplete_set_is_refused(engine_set, graph):
    (engine_set / f"{graph}.onnx").unlink()
    assert_refused(engine_set, f"lacks {graph}.onnx.*dc-export onnx")


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_version_is_refused(engine_set, version):
    edit(engine_set, format=version)
    assert_refused(engine_set, "format version.*dc-export onnx")


def test_a_changed_file_is_refused(engine_set):
    path = engine_set / "denoiser.onnx"
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)
    assert_refused(engine_set, "denoiser.onnx was changed")


def test_a_truncated_file_is_refused(engine_set):
    path = engine_set / "vae_decoder.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    assert_refused(engine_set, "vae_decoder.onnx has .* bytes")


@pytest.mark.parametrize("contents", ["", "{", "[]", "null", '{"format": 1}', '{"format": 1, "model": 3}', "\udcff"])
def test_a_damaged_manifest_is_refused(engine_set, contents):
    (engine_set / "manifest.json").write_bytes(contents.encode("utf-8", "surrogateescape"))
    assert_refused(engine_set, "manifest.json|format version")


@pytest.mark.parametrize("name", ["../denoiser.onnx", "/etc/passwd", "", ".."])
def test_a_manifest_does_not_lead_out_of_its_folder(engine_set, name):
    graphs = json.loads((engine_set / "manifest.json").read_text())["graphs"]
    graphs["denoiser"][0]["name"] = name
    edit(engine_set, graphs=graphs)
    assert_refused(engine_set, "damaged")


def test_a_graph_that_is_none_is_refused_with_what_the_runtime_said(engine_set):
    path = engine_set / "clip_encoder.onnx"
    path.write_bytes(b"not a graph")
    manifest = json.loads((engine_set / "manifest.json").read_text())
    manifest["graphs"]["clip_encoder"][0] |= {
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    edit(engine_set, **manifest)
    assert_refused(engine_set, "ONNX Runtime .* cannot open")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tpu"}, "auto, onnx, tensorrt, torch"),
        ({"backend": "tensorrt"}, "no engines for it.*dc-export build"),
        ({"cpu_offload": "layers"}, "none, model, sequential"),
        ({"attention": "math", "backend": "onnx"}, "attention='math' is of PyTorch, .* use backend='torch'"),
        ({"cpu_offload": "sequential"}, "cpu_offload='model'"),
    ],
)
def test_a_backend_or_offload_that_cannot_be_had_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        DepthCrafter.load(BUNDLED, **options)


def test_the_torch_backend_runs_the_checkpoint_of_the_manifest(engines, model):
    frames = np.random.default_rng(0).integers(0, 256, (3, 128, 64, 3), dtype=np.uint8)
    torch_model = DepthCrafter.load(engines, backend="torch")
    assert torch_model.engines.backend == "torch"
    expected = np.stack(list(model(frames, steps=2)))
    np.testing.assert_allclose(np.stack(list(torch_model(frames, steps=2))), expected, atol=1e-4)


def test_the_torch_backend_says_when_the_checkpoint_is_gone(engine_set):
    pytest.importorskip("torch", reason="PyTorch is not installed: it comes with the extra export")
    model = json.loads((engine_set / "manifest.json").read_text())["model"]
    edit(engine_set, model=model | {"base": "/gone/base", "unet": "/gone/unet"})
    with pytest.raises(UserError, match="/gone/base"):
        DepthCrafter.load(engine_set, backend="torch")


def test_engines_are_chosen_in_the_documented_order(tmp_path, monkeypatch):
    assert choose_engines(None)[0] == BUNDLED
    for name, created in (("older", "2026-01-01"), ("newest", "2026-03-01"), ("middle", "2026-02-01")):
        edit(Path(shutil.copytree(BUNDLED, f"engines/{name}")), created=created)
    edit(Path(shutil.copytree(BUNDLED, "engines/incomplete")), created="2027-01-01")
    (tmp_path / "cwd/engines/incomplete/denoiser.onnx").unlink()
    assert [path.name for path in list_engines(tmp_path / "cwd/engines")] == ["middle", "newest", "older"]
    folder, reason = choose_engines(None)
    assert folder.name == "newest"
    assert "./engines" in reason
    monkeypatch.setenv("DC_RT_ENGINES", "/elsewhere")
    assert str(choose_engines(None)[0]) == "/elsewhere"
    assert choose_engines(tmp_path)[0] == tmp_path
