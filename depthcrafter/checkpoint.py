"""Loading DepthCrafter's networks, from safetensors only, never from pickles, and only if they are whole.

`depthcrafter.source` says where a checkpoint may come from and brings it here. Libraries initialise what a checkpoint
lacks at random, or leave it without storage, and at most warn: here each weight is accounted for.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler
from safetensors import SafetensorError, safe_open
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from dc_rt.errors import UserError
from dc_rt.schedule import RHO, SIGMA_MAX, SIGMA_MIN
from depthcrafter.layout import CONFIGS, build_unet
from depthcrafter.source import (
    DEFAULT_BASE,
    DEFAULT_UNET,
    NETWORKS,
    Checkpoint,
    Origin,
    Wanted,
    find_base,
    find_unet,
    weights_of,
)
from depthcrafter.unet import DepthCrafterUNet

__all__ = [
    "DEFAULT_BASE",
    "DEFAULT_UNET",
    "PRECISIONS",
    "check_checkpoint",
    "load_feature_extractor",
    "load_image_encoder",
    "load_scheduler",
    "load_unet",
    "load_vae",
]

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16}
# How ComfyUI calls the UNet in a file of several networks, and the others there.
COMFYUI_PREFIX = "model.diffusion_model."
COMFYUI_OTHERS = ("first_stage_model.", "conditioner.", "cond_stage_model.")
# Of Stable Video Diffusion's original code, which diffusers renamed.
ORIGINAL_NAMES = ("input_blocks.", "middle_block.", "output_blocks.", "time_embed.")
# Constants that transformers once stored among the weights.
HARMLESS = "position_ids"
NAMED = 3  # weights that an error names of those that it counts

_TITLES = {"image_encoder": "image encoder", "vae": "VAE", "unet": "UNet"}


class _Unfit(Exception):
    """Why files cannot be a network: half a sentence that begins with where they are."""


def load_unet(unet: Origin, dtype: torch.dtype = torch.float32) -> DepthCrafterUNet:
    """The denoising UNet from `unet`: a folder with `config.json` and safetensors, one such file, or a hub id.

    A file may have ComfyUI's prefix before its names. It is the real UNet's unless `config.json` lies beside it.

    Raises:
        UserError: there is no such checkpoint, or it holds no safetensors, or its weights are not exactly those of the
            network that its configuration describes, or are not finite.
    """
    return _load("unet", find_unet(unet, _precision(dtype)).path, dtype)  # type: ignore[no-any-return]


def load_vae(base: Origin, dtype: torch.dtype = torch.float32) -> AutoencoderKLTemporalDecoder:
    """The VAE from subfolder `vae` of `base`. Raises `UserError` as `load_unet` does."""
    return _load("vae", find_base(base, [("vae", _precision(dtype))]).path, dtype)


def load_image_encoder(base: Origin, dtype: torch.dtype = torch.float32) -> CLIPVisionModelWithProjection:
    """The CLIP vision tower with its projection from subfolder `image_encoder` of `base`. Raises likewise."""
    return _load("image_encoder", find_base(base, [("image_encoder", _precision(dtype))]).path, dtype)


def load_feature_extractor(base: Origin) -> CLIPImageProcessor:
    """CLIP's preprocessing (its mean and standard deviation) from subfolder `feature_extractor` of `base`."""
    return _configured(CLIPImageProcessor, base, "feature_extractor")


def load_scheduler(base: Origin) -> EulerDiscreteScheduler:
    """The scheduler of `base`, once it is the one that `dc_rt.schedule` computes.

    Raises:
        UserError: the checkpoint wants another schedule than Karras sigmas from 700 to 0.002 and v-prediction.
    """
    scheduler = _configured(EulerDiscreteScheduler, base, "scheduler")
    expected = {
        "prediction_type": "v_prediction",
        "timestep_type": "continuous",
        "use_karras_sigmas": True,
        "sigma_min": SIGMA_MIN,
        "sigma_max": SIGMA_MAX,
    }
    for key, value in expected.items():
        if (found := scheduler.config.get(key)) != value:
            raise UserError(
                f"The scheduler of {base} has {key}={found} where DepthCrafter has {value} (rho {RHO:g}); "
                f"give the base checkpoint that DepthCrafter was trained from, {DEFAULT_BASE}."
            )
    return scheduler


def check_checkpoint(checkpoint: Checkpoint, wanted: Iterable[Wanted]) -> dict[str, Any]:
    """Load every wanted network once, one at a time, before hours are spent on the first of them.

    Returns:
        The networks' configurations by name.

    Raises:
        UserError: some are not whole, each named in the one sentence; or the scheduler is another.
    """
    load_scheduler(checkpoint.base.path)
    load_feature_extractor(checkpoint.base.path)
    configs: dict[str, Any] = {}
    faults: list[str] = []
    for name, precision in wanted:
        if name in NETWORKS:
            path = (checkpoint.unet if name == "unet" else checkpoint.base).path
            try:
                configs[name] = _open(name, path, PRECISIONS[precision]).config
            except _Unfit as error:
                faults.append(str(error))
    if faults:
        raise _unfit(dict.fromkeys(faults))
    return configs


def _load(name: str, path: Path, dtype: torch.dtype) -> Any:
    try:
        return _open(name, path, dtype)
    except _Unfit as error:
        raise _unfit([str(error)]) from error


def _unfit(faults: Iterable[str]) -> UserError:
    return UserError(f"{'; '.join(faults)}; give a checkpoint that is whole, as the hub has it.")


def _open(name: str, path: Path, dtype: torch.dtype) -> Any:
    """The network `name` from the folder, or the UNet's single file, `path`.

    Raises:
        _Unfit: the files are damaged, or hold other weights than the network has.
    """
    if path.is_file():
        model, files = _unet_of_file(path), [path]
        model = _with_weights(model, name, path, files, dtype)
    else:
        names = [file.relative_to(path).as_posix() for file in (path / NETWORKS[name].subfolder).iterdir()]
        files = [path / file for file in weights_of(names, name, _precision(dtype))]
        folder = path / NETWORKS[name].subfolder
        if name == "image_encoder":
            model = _image_encoder(folder, files, dtype)
        else:
            model_class = DepthCrafterUNet if name == "unet" else AutoencoderKLTemporalDecoder
            model = _with_weights(_configured_model(model_class, folder), name, folder, files, dtype)
    return model.eval().requires_grad_(False)


def _configured_model(model_class: Any, folder: Path) -> Any:
    """The network that `config.json` describes, without storage for its weights."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
        if not isinstance(config, dict):  # a string would be taken for a hub id
            raise ValueError("it is no JSON object")
        with torch.device("meta"):
            return model_class.from_config(config)
    except Exception as error:  # whatever a library says to it is about the file
        raise _Unfit(f"{path} does not describe a {model_class.__name__} ({_first_line(error)})") from error


def _unet_of_file(path: Path) -> DepthCrafterUNet:
    if path.with_name("config.json").is_file():
        return _configured_model(DepthCrafterUNet, path.parent)  # type: ignore[no-any-return]
    with torch.device("meta"):
        unet = build_unet(CONFIGS["full"])
    # Of the many that an unlike one has, one shape says it.
    shapes = {key.removeprefix(COMFYUI_PREFIX): shape for key, shape in _shapes(path).items()}
    if shapes.get("conv_in.weight", unet.conv_in.weight.shape) != unet.conv_in.weight.shape:
        raise _Unfit(f"{path} is a UNet of another size than the real one, and there is no config.json beside it")
    return unet


def _with_weights(model: Any, name: str, where: Path, files: Sequence[Path], dtype: torch.dtype) -> Any:
    """`model`, a network of diffusers without storage, with the weights of `files`."""
    shapes: dict[str, tuple[int, ...]] = {}
    stored: dict[str, tuple[Path, str]] = {}
    for file in files:
        for key, shape in _shapes(file).items():
            shapes[key], stored[key] = shape, (file, key)
    if name == "unet" and any(key.startswith(COMFYUI_PREFIX) for key in shapes):
        plain = {key: key.removeprefix(COMFYUI_PREFIX) for key in shapes if not key.startswith(COMFYUI_OTHERS)}
        shapes = {plain[key]: shapes[key] for key in plain}
        stored = {plain[key]: stored[key] for key in plain}
    if name == "unet" and any(key.startswith(ORIGINAL_NAMES) for key in shapes):
        raise _Unfit(
            f"{where} has the UNet's weights under the names of Stable Video Diffusion's original code "
            f"({next(key for key in shapes if key.startswith(ORIGINAL_NAMES))}), and not diffusers' (conv_in.weight)"
        )
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    others = {
        key: (shapes[key], expected[key]) for key in shapes.keys() & expected.keys() if shapes[key] != expected[key]
    }
    _account(name, where, len(expected), expected.keys() - shapes.keys(), shapes.keys() - expected.keys(), others)
    state = {}
    for file in files:
        with _opened(file) as weights:
            for key, (holder, stored_key) in stored.items():
                if holder == file:
                    state[key] = weights.get_tensor(stored_key).to(dtype)
    model.load_state_dict(state, assign=True)
    _check_finite(name, where, state.items(), dtype)
    return model


def _image_encoder(folder: Path, files: Sequence[Path], dtype: torch.dtype) -> CLIPVisionModelWithProjection:
    """transformers names the weights otherwise from one version to the next, and knows how: it has to load them."""
    stored = {key: shape for file in files for key, shape in _shapes(file).items()}
    try:
        model, info = CLIPVisionModelWithProjection.from_pretrained(
            folder,
            variant="fp16" if ".fp16" in files[0].name else None,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except Exception as error:  # whatever the library says to them is about the files
        raise _Unfit(f"{folder} does not hold an image encoder ({_first_line(error)})") from error
    # Names alone in transformers 4; with the shapes found and wanted in 5.
    mismatched = {entry if isinstance(entry, str) else entry[0] for entry in info["mismatched_keys"]}
    own = model.state_dict()
    others = {key: (stored.get(key, ()), tuple(own[key].shape)) for key in mismatched}
    unexpected = {key for key in info["unexpected_keys"] if not key.endswith(HARMLESS)}
    missing = set(info["missing_keys"]) - others.keys()
    _account("image_encoder", folder, len(own), missing, unexpected, others)
    _check_finite("image_encoder", folder, model.named_parameters(), dtype)
    return model


def _account(
    name: str,
    where: Path,
    total: int,
    missing: Collection[str],
    unexpected: Collection[str],
    others: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
) -> None:
    """Raise `_Unfit` unless each weight is there once, in its shape, and nothing else is."""
    faults = []
    if missing:
        faults.append(f"lacks {len(missing)} of its {total} weights ({_some(missing)})")
    if unexpected:
        faults.append(f"has {len(unexpected)} that are no weights of it ({_some(unexpected)})")
    if others:
        shapes = [f"{key} {list(found)} and not {list(wanted)}" for key, (found, wanted) in others.items()]
        faults.append(f"has {len(others)} in another shape than its config.json says ({_some(shapes)})")
    if faults:
        raise _Unfit(f"the {_TITLES[name]} in {where} {' and '.join(faults)}")


def _check_finite(name: str, where: Path, weights: Iterable[tuple[str, torch.Tensor]], dtype: torch.dtype) -> None:
    # A weight at a time: what it takes beside the weights is a byte for each number of the largest.
    wrong = [key for key, value in weights if not torch.isfinite(value).all()]
    if wrong:
        raise _Unfit(
            f"the {_TITLES[name]} in {where} has {len(wrong)} weights that are not finite in {_precision(dtype)} "
            f"({_some(wrong)})"
        )


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    with _opened(file) as weights:
        return {key: tuple(weights.get_slice(key).get_shape()) for key in list(weights.keys())}


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as weights:
            yield weights
    except (SafetensorError, OSError) as error:
        raise _Unfit(
            f"{file.resolve()} is damaged or cut short ({_first_line(error)}): delete it and get it anew"
        ) from error


def _configured(loader: Any, base: Origin, part: str) -> Any:
    folder = find_base(base, [(part, "")]).path / part
    try:
        return loader.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever a library says to it is about the file
        raise UserError(
            f"{base} is not a base checkpoint ({_first_line(error)}); "
            "give a folder in the Hugging Face layout or a hub id."
        ) from error


def _precision(dtype: torch.dtype) -> str:
    return "fp16" if dtype == torch.float16 else "fp32"


def _some(names: Collection[str]) -> str:
    first = sorted(names)[:NAMED]
    return ", ".join(first) + (", ..." if len(names) > NAMED else "")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0].rstrip(".")
