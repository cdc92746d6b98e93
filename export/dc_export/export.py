"""From a checkpoint to an engine set of ONNX graphs."""

from __future__ import annotations

import contextlib
import datetime
import gc
import hashlib
import io
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch.export import Dim

from dc_export.graphs import GRAPH_SPECS, ClipEncoder, Denoiser, Graph, VaeDecoder, VaeEncoder
from dc_export.half_encoder import prepare_half
from dc_export.made_from import key_of, up_to_date, versions_of_the_exporter
from dc_export.rewrite import rewrite_graph
from dc_export.staging import WEIGHTS, staged, swap
from dc_export.targets import choose_settings
from dc_export.tensor_sizes import check_tensor_sizes
from dc_export.weights import WeightsHash
from dc_rt.engine import GRAPHS, File, Manifest, Model, Profile
from dc_rt.engine.manifest import NOT_IN_A_LINE
from dc_rt.errors import UserError
from depthcrafter.checkpoint import (
    PRECISIONS,
    check_checkpoint,
    load_feature_extractor,
    load_image_encoder,
    load_unet,
    load_vae,
)
from depthcrafter.report import Report
from depthcrafter.source import Checkpoint, Origin, find_checkpoint, model_name, parts_for

OPSET = 23  # the first with an Attention node, which ONNX Runtime runs twice as fast as its parts, in half the memory
# A protobuf message ends at 2 GiB; past this the weights go into a file beside the graph.
EXTERNAL_DATA_BYTES = 1 << 30


def export_onnx(
    base: Origin,
    unet: Origin,
    out: str | os.PathLike[str],
    *,
    precision: str | None = None,
    profile: str | None = None,
    name: str | None = None,
    target: str = "onnx",
    low_memory: bool = False,
    plain: bool = False,
    base_revision: str | None = None,
    unet_revision: str | None = None,
    force: bool = False,
    report: Report = print,
) -> Manifest:
    """Write the four graphs and the manifest of an engine set, unless they are there and up to date.

    All weights are here and checked before anything is traced or written. One network is in memory at a time. A set
    that is there already stays as it is until the new one is whole, whatever becomes of this; engines of graphs that
    come out the same are kept (see `dc_export.staging`).

    Args:
        base: folder or hub id of Stable Video Diffusion.
        unet: folder or hub id of DepthCrafter's UNet.
        out: folder of the engine set, made if need be; an engine set in it is replaced at the end.
        precision: of the weights and the arithmetic, "fp32" or "fp16"; by default what the target is best at, which
            is fp16 for TensorRT. Inputs and outputs are float32 (frames uint8) in both.
        profile: name of a size profile, recorded for whoever runs the set; the target's widest unless given.
        name: what to call the model; from the UNet's name unless given.
        target: "onnx" for ONNX Runtime; "tensorrt" for graphs that TensorRT builds (see `dc_export.rewrite`), which
            ONNX Runtime runs too.
        low_memory: for TensorRT, trade time for memory.
        plain: for TensorRT, trade memory for time: nothing is computed in slices.
        base_revision: branch, tag or commit of a base on the hub; its main branch unless given.
        unet_revision: likewise of the UNet.
        force: export graphs that are up to date too.
        report: is told of every long step.

    Raises:
        UserError: a checkpoint cannot be had or is not whole, there is no such precision, profile or target, a network
            is not written as the rules of `dc_export.rewrite` know it, a tensor is too large for TensorRT at the
            profile's largest shape, or another process is working on the set.
        OSError: the disk refuses.
    """
    precision, sizes = choose_settings(target, precision, profile, low_memory, plain)
    name = name or model_name(unet)
    if not name or NOT_IN_A_LINE.search(name):
        raise UserError(f"A model cannot be called {name!r}; give it another name (--name).")
    revisions = {"base_revision": base_revision, "unet_revision": unet_revision}
    checkpoint = find_checkpoint(base, unet, parts_for(precision), **revisions, report=report)
    form = {"target": target, "low_memory": low_memory, "plain": plain}
    options = {"precision": precision, "profile": asdict(sizes)} | form
    made_from = key_of(checkpoint, name=name, base=_origin(base), unet=_origin(unet), **options)
    folder = Path(out)
    if not force and (found := up_to_date(folder, made_from)):
        report("the graphs are up to date")
        return found
    report("checking the weights")
    configs = check_checkpoint(checkpoint, parts_for(precision))
    embedding_dim, latent_channels = configs["image_encoder"].projection_dim, configs["vae"].latent_channels
    _check_fits(configs["unet"], embedding_dim, latent_channels, base, unet)
    model = Model(
        name=name,
        base=_origin(base),
        unet=_origin(unet),
        base_revision=checkpoint.base.revision,
        unet_revision=checkpoint.unet.revision,
        embedding_dim=embedding_dim,
        latent_channels=latent_channels,
    )
    with staged(folder) as staging:
        manifest = _export(checkpoint, model, staging, precision, sizes, form, report)
        return swap(staging, folder, replace(manifest, made_from=made_from))


def _export(
    checkpoint: Checkpoint,
    model: Model,
    folder: Path,
    precision: str,
    sizes: Profile,
    form: dict[str, Any],
    report: Report,
) -> Manifest:
    """Write the four graphs into an empty folder; gives the manifest that they are to have."""
    dtype = PRECISIONS[precision]
    at_base, at_unet = checkpoint.base.path, checkpoint.unet.path
    weights = WeightsHash()
    scaling: dict[str, int] = {}

    def vae_encoder(vae: AutoencoderKLTemporalDecoder) -> VaeEncoder:
        if precision == "fp16":
            scaling.update(prepare_half(vae))
        return VaeEncoder(vae)

    loaders: dict[str, Callable[[], torch.nn.Module]] = {
        "clip_encoder": lambda: ClipEncoder(
            weights.add("image_encoder", load_image_encoder(at_base, dtype)), load_feature_extractor(at_base)
        ),
        "vae_encoder": lambda: vae_encoder(weights.add("vae", load_vae(at_base, torch.float32))),
        "denoiser": lambda: Denoiser(weights.add("unet", load_unet(at_unet, dtype))),
        "vae_decoder": lambda: VaeDecoder(load_vae(at_base, dtype)),
    }
    files: dict[str, tuple[File, ...]] = {}
    for number, graph in enumerate(GRAPHS, 1):
        began = time.perf_counter()
        report(f"[{number}/{len(GRAPHS)}] {graph}: loading the weights")
        module = loaders[graph]()
        report(f"[{number}/{len(GRAPHS)}] {graph}: tracing")
        traced = _trace(module, GRAPH_SPECS[graph], model.embedding_dim, model.latent_channels)
        rewrite_graph(traced, module, graph, **form)
        _tidy(traced, GRAPH_SPECS[graph])
        report(f"[{number}/{len(GRAPHS)}] {graph}: writing {len(traced.graph)} nodes")
        paths = _save(traced, folder / f"{graph}.onnx")
        if form["target"] == "tensorrt":
            check_tensor_sizes(paths[0], sizes)
        files[graph] = tuple(File.of(path) for path in paths)
        size = sum(file.bytes for file in files[graph])
        report(f"[{number}/{len(GRAPHS)}] {graph}: {size / 1e6:.1f} MB in {time.perf_counter() - began:.0f} s")
        del module, traced
        gc.collect()

    return Manifest(
        model=model,
        flavour="onnx",
        precision=precision,
        opset=OPSET,
        profile=sizes,
        graphs=files,
        versions=versions_of_the_exporter(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        weights=weights.hexdigest(),
        encoder_scaling=scaling,
        **form,
    )


def _trace(module: torch.nn.Module, spec: Graph, embedding_dim: int, latent_channels: int) -> ir.Model:
    """The ONNX graph of `module`, with dynamic frames, height and width, and the exporter's notes on every node."""
    example = spec.example(embedding_dim, latent_channels)
    h, w = Dim("h", min=1, max=64), Dim("w", min=1, max=64)
    # The bounds on n and T are those that tracing itself finds (kernels it would choose differently beyond them, which
    # no ONNX node depends on): stated here, since otherwise it traces once more to learn them. `dc-export verify` runs
    # 1 frame and more than 63.
    frames = {"n": Dim("n", min=2, max=63), "T": Dim("T", min=2, max=63)}
    # Latents are halved three times, so h and w are multiples of 8 and the frames' sides multiples of 64.
    dims = frames | {"h": 8 * h, "w": 8 * w, "H": 64 * h, "W": 64 * w}
    shapes = {name: {axis: dims[dim] for axis, dim in axes.items()} or None for name, axes in spec.inputs.items()}
    with _quiet(), torch.no_grad(), torch.fx.experimental._config.patch(backed_size_oblivious=True):
        program = torch.export.export(module.eval(), (), kwargs=example, dynamic_shapes=shapes, strict=False)
        exported = torch.onnx.export(
            program, kwargs=example, dynamo=True, opset_version=OPSET, output_names=[spec.output], verbose=False
        )
    assert exported is not None
    return exported.model


def _tidy(model: ir.Model, spec: Graph) -> None:
    """Name the axes and drop what only the exporter needed: source lines of every node, inferred shapes."""
    for value in model.graph.inputs:
        _name_axes(value, spec.inputs[str(value.name)])
    _name_axes(model.graph.outputs[0], spec.output_axes)
    keep = {id(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            if id(value) not in keep:
                value.shape = None
    model.metadata_props.clear()
    model.graph.metadata_props.clear()


def _name_axes(value: ir.Value, axes: dict[int, str]) -> None:
    assert value.shape is not None
    value.metadata_props.clear()
    value.shape = ir.Shape([axes.get(axis, size) for axis, size in enumerate(value.shape)])


def _save(model: ir.Model, path: Path) -> list[Path]:
    """Write the graph, and its weights beside it where they are too large to be inside."""
    tensors = [value.const_value for value in model.graph.initializers.values() if value.const_value]
    if sum(tensor.nbytes for tensor in tensors) < EXTERNAL_DATA_BYTES:
        ir.save(model, path)
        return [path]
    # Called by its contents: when a set is replaced, the old graph's weights stay beside the new one's until the end.
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.nbytes} ".encode())
        digest.update(tensor.tobytes())
    data = path.with_name(f"{path.stem}.{digest.hexdigest()[:16]}.{WEIGHTS}")
    ir.save(model, path, external_data=data.name)
    return [path, data]


def _check_fits(config: Any, embedding_dim: int, latent_channels: int, base: Origin, unet: Origin) -> None:
    if config.cross_attention_dim != embedding_dim or config.in_channels != 2 * latent_channels:
        raise UserError(
            f"The UNet {unet} takes embeddings of {config.cross_attention_dim} and {config.in_channels} channels, and "
            f"the base {base} gives {embedding_dim} and 2 x {latent_channels}; give the base that it was trained with."
        )


def _origin(source: Origin) -> str:
    """What the manifest records: a folder by its full path, anything else as it was given."""
    return str(Path(source).resolve()) if Path(source).exists() else str(source)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's warnings, which are about itself, off the terminal."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
