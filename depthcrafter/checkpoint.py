"""Loading DepthCrafter's networks: from folders or hub ids, from safetensors only, never from pickles.

DepthCrafter is two checkpoints. The *base* (`stabilityai/stable-video-diffusion-img2vid-xt`) has the VAE, the CLIP
image encoder and the scheduler in subfolders; the *UNet* (`tencent/DepthCrafter`, non-commercial licence) stands on its
own. Two more spellings need no hub: `nano` is the small trained checkpoint that comes with this package, and
`random:CONFIG[:SEED]` a random one, made once in the user's cache folder.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from dc_rt.engine.discovery import BUNDLED
from dc_rt.errors import UserError
from dc_rt.schedule import RHO, SIGMA_MAX, SIGMA_MIN
from depthcrafter.layout import CONFIGS
from depthcrafter.random_checkpoint import make_checkpoint
from depthcrafter.unet import DepthCrafterUNet

DEFAULT_BASE = "stabilityai/stable-video-diffusion-img2vid-xt"
DEFAULT_UNET = "tencent/DepthCrafter"

Source = str | os.PathLike[str]
M = TypeVar("M", bound=torch.nn.Module)


def load_unet(unet: Source, dtype: torch.dtype = torch.float32) -> DepthCrafterUNet:
    """The denoising UNet from `unet`: a folder with `config.json` and safetensors, or a hub id.

    Raises:
        UserError: there is no such checkpoint, or it holds no safetensors.
    """
    # The hub has it in one file, without a variant, whatever its precision.
    return _load(DepthCrafterUNet, _unet_folder(unet), None, (None, "fp16"), torch_dtype=dtype)


def load_vae(base: Source, dtype: torch.dtype = torch.float32) -> AutoencoderKLTemporalDecoder:
    """The VAE from subfolder `vae` of `base`. Raises `UserError` as `load_unet` does."""
    return _load(AutoencoderKLTemporalDecoder, _base_folder(base), "vae", _variants(dtype), torch_dtype=dtype)


def load_image_encoder(base: Source, dtype: torch.dtype = torch.float32) -> CLIPVisionModelWithProjection:
    """The CLIP vision tower with its projection from subfolder `image_encoder` of `base`."""
    return _load(CLIPVisionModelWithProjection, _base_folder(base), "image_encoder", _variants(dtype), dtype=dtype)


def load_feature_extractor(base: Source) -> CLIPImageProcessor:
    """CLIP's preprocessing (its mean and standard deviation) from subfolder `feature_extractor` of `base`."""
    return _found(base, CLIPImageProcessor.from_pretrained, _base_folder(base), subfolder="feature_extractor")


def load_scheduler(base: Source) -> EulerDiscreteScheduler:
    """The scheduler of `base`, once it is the one that `dc_rt.schedule` computes.

    Raises:
        UserError: the checkpoint wants another schedule than Karras sigmas from 700 to 0.002 and v-prediction.
    """
    scheduler = _found(base, EulerDiscreteScheduler.from_pretrained, _base_folder(base), subfolder="scheduler")
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


def revision(model: torch.nn.Module) -> str | None:
    """The hub's commit that `model` was loaded from; None for a folder."""
    config = getattr(model, "config", None)
    commit = config.get("_commit_hash") if isinstance(config, dict) else getattr(config, "_commit_hash", None)
    return commit if isinstance(commit, str) else None


def _variants(dtype: torch.dtype) -> tuple[str | None, ...]:
    """File variants of the base, the nearest to `dtype` first."""
    return ("fp16", None) if dtype == torch.float16 else (None, "fp16")


def _load(
    model_class: type[M], source: str, subfolder: str | None, variants: tuple[str | None, ...], **dtype: torch.dtype
) -> M:
    """Load in the wanted precision from the first of `variants` that exists."""
    failure: Exception | None = None
    for variant in _on_disk(Path(source, subfolder or ""), variants):
        options: dict[str, Any] = {"subfolder": subfolder} if subfolder else {}
        if variant:
            options["variant"] = variant
        try:
            model = model_class.from_pretrained(source, use_safetensors=True, **options, **dtype)
        except (OSError, ValueError) as error:
            failure = failure or error
            continue
        return model.eval().requires_grad_(False)  # type: ignore[no-any-return]
    where = f"{source}/{subfolder}" if subfolder else source
    raise UserError(
        f"No {model_class.__name__} in safetensors could be loaded from {where} ({_first_line(failure)}); "
        "give a folder in the Hugging Face layout or a hub id that this machine can reach."
    ) from failure


def _on_disk(folder: Path, variants: tuple[str | None, ...]) -> tuple[str | None, ...]:
    """Those of `variants` that a folder has; all where there is no such folder, as with a hub id.

    Asked for one that is not there, diffusers prints an error before it raises one.
    """
    files = [path.name for path in folder.glob("*.safetensors")]
    there = {"fp16" if ".fp16" in name else None for name in files}
    return tuple(variant for variant in variants if variant in there) or variants


def _found(source: Source, load: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return load(*args, **kwargs)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{source} is not a base checkpoint ({_first_line(error)}); "
            "give a folder in the Hugging Face layout or a hub id that this machine can reach."
        ) from error


def _first_line(error: Exception | None) -> str:
    return str(error).strip().split("\n", 1)[0].rstrip(".")


def _base_folder(source: Source) -> str:
    return _own_folder(str(source)) or str(source)


def _unet_folder(source: Source) -> str:
    own = _own_folder(str(source))
    return f"{own}/unet" if own else str(source)


@functools.cache
def _own_folder(source: str) -> str | None:
    """The folder of `nano`, or of `random:CONFIG[:SEED]`, made if need be; None for any other source."""
    if source == "nano":
        return str(BUNDLED / "checkpoint")
    if not source.startswith("random:"):
        return None
    name, _, seed = source.removeprefix("random:").partition(":")
    if name not in CONFIGS or not (seed or "0").isdecimal():
        raise UserError(
            f"There is no checkpoint {source}; the known ones are nano, random:{', random:'.join(CONFIGS)}."
        )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "depthcrafter-rt"
    folder = cache / f"random-{name}-{seed or 0}"
    if not (folder / "model_index.json").exists():
        make_checkpoint(folder, name, int(seed or 0))
    return str(folder)
