"""What tells one checkpoint from another: a hash of its weights, whatever is made from them."""

import re

import onnx_ir as ir
import pytest
import torch
from safetensors.torch import load_file, save_file

from dc_export import export as exporter
from dc_export.weights import WeightsHash
from dc_rt.engine.discovery import BUNDLED
from dc_rt.engine.manifest import Manifest
from depthcrafter.checkpoint import load_image_encoder, load_unet, load_vae


def hash_of(base, unet, dtype=torch.float32):
    weights = WeightsHash()
    weights.add("unet", load_unet(unet, dtype))
    weights.add("vae", load_vae(base, dtype))
    weights.add("image_encoder", load_image_encoder(base, dtype))
    return weights.hexdigest()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_bundled_set_has_the_hash_of_the_checkpoint_that_comes_with_it(dtype):
    assert hash_of("nano", "nano", dtype) == Manifest.read(BUNDLED).weights


def test_the_hash_depends_on_every_weight_and_on_nothing_else(checkpoint):
    """Not on the precision that they are loaded in; on each network, and on single numbers."""
    base, unet = checkpoint
    found = hash_of(base, unet)
    assert hash_of(base, unet, torch.float16) == found
    assert len({found, hash_of("nano", unet), hash_of(base, "nano"), hash_of("nano", "nano")}) == 4
    (path,) = unet.glob("*.safetensors")
    kept = path.read_bytes()
    tensors = load_file(path)
    name = max(tensors, key=lambda name: tensors[name].numel())
    tensors[name].view(-1)[7] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    try:
        assert hash_of(base, unet) != found
    finally:
        path.write_bytes(kept)
    assert hash_of(base, unet) == found


def test_weights_in_a_file_of_their_own_are_called_by_their_contents(tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "EXTERNAL_DATA_BYTES", 1)
    names = []
    for turn in ("first", "again"):
        (tmp_path / turn).mkdir()
        graph, data = exporter._save(ir.load(BUNDLED / "vae_decoder.onnx"), tmp_path / turn / "vae_decoder.onnx")
        assert re.fullmatch(r"vae_decoder\.[0-9a-f]{16}\.data", data.name)
        assert data.stat().st_size > 400_000
        names.append((data.name, graph.read_bytes(), data.read_bytes()))
    assert names[0] == names[1]
