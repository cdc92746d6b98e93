"""Where the files of a checkpoint are: in folders, in this package, or on the hub, from where they are fetched.

DepthCrafter is two checkpoints. The *base* (`stabilityai/stable-video-diffusion-img2vid-xt`) has the VAE, the CLIP
image encoder and the scheduler in subfolders; the *UNet* (`tencent/DepthCrafter`, non-commercial licence) stands on its
own, and may be a single file. Two more spellings need no hub: `nano` is the small trained checkpoint that comes with
this package, and `random:CONFIG[:SEED]` a random one, made once in the user's cache folder.

Nothing here needs PyTorch, but making a random checkpoint: what the hub refuses is said before it is imported.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from dc_rt.engine.discovery import BUNDLED
from dc_rt.errors import UserError
from depthcrafter.hub import ask_hub, fetch
from depthcrafter.report import Report, to_stderr

DEFAULT_BASE = "stabilityai/stable-video-diffusion-img2vid-xt"
DEFAULT_UNET = "tencent/DepthCrafter"

Origin = str | os.PathLike[str]
"""Where a checkpoint comes from: a folder, a hub id, or one of the spellings above."""
# A part of a checkpoint and, for a network, the precision that it is wanted in, "fp32" or "fp16".
Wanted = tuple[str, str]


@dataclass(frozen=True)
class Network:
    """Where a network's files are in its repository, and how they are called."""

    subfolder: str
    stem: str


NETWORKS = {
    "image_encoder": Network("image_encoder", "model"),
    "vae": Network("vae", "diffusion_pytorch_model"),
    "unet": Network("", "diffusion_pytorch_model"),
}
CONFIGS = {
    "scheduler": "scheduler/scheduler_config.json",
    "feature_extractor": "feature_extractor/preprocessor_config.json",
}
# A file of weights: of one of the networks above, in a variant or none, whole or in parts.
_WEIGHTS = re.compile(
    r"(?P<stem>\w+)(?:\.(?P<variant>fp16))?(?:-\d{5}-of-(?P<parts>\d{5}))?(?:\.(?P<late_variant>fp16))?\.safetensors"
)


def model_name(unet: Origin) -> str:
    """What a model is called by default: as its UNet's file, folder or repository is."""
    text = str(unet)
    if text.startswith("random:"):
        return text.replace(":", "-")
    path = Path(text.removesuffix(".safetensors"))
    return path.parent.name if path.name == "unet" and path.parent.name else path.name


def parts_for(precision: str) -> list[Wanted]:
    """What the four graphs take in `precision`: all of a checkpoint, and the VAE twice in half precision.

    The VAE's encoder stays in float32, since it overflows float16.
    """
    networks = [("image_encoder", precision), ("vae", "fp32"), ("vae", precision), ("unet", precision)]
    return list(dict.fromkeys([*((part, "") for part in CONFIGS), *networks]))


@dataclass(frozen=True)
class Location:
    """A source on this machine: a folder, or a single file of a UNet; and the commit of one that the hub gave."""

    path: Path
    revision: str | None = None


@dataclass(frozen=True)
class Checkpoint:
    """Both parts of a checkpoint on this machine."""

    base: Location
    unet: Location


def find_checkpoint(
    base: Origin,
    unet: Origin,
    wanted: Iterable[Wanted],
    *,
    base_revision: str | None = None,
    unet_revision: str | None = None,
    report: Report | None = None,
) -> Checkpoint:
    """Have the files of both sources on this machine; what the hub has to give is fetched, its size said first.

    Args:
        base: folder or hub id of Stable Video Diffusion, or one of this module's own spellings.
        unet: folder, safetensors file or hub id of DepthCrafter's UNet, or likewise.
        wanted: the parts and the precisions of the networks; the file in that precision is taken where there is one.
        base_revision: branch, tag or commit of the base, for a hub id; its main branch unless given.
        unet_revision: likewise of the UNet.
        report: is told what is downloaded and how far it is; standard error unless given.

    Raises:
        UserError: a source is not there, lacks files that are needed, or the hub does not give them.
    """
    wanted = list(wanted)
    in_base, in_unet = ([part for part in wanted if (part[0] == "unet") == its] for its in (False, True))
    places = _find([(base, base_revision, in_base), (unet, unet_revision, in_unet)], report)
    return Checkpoint(*places)


def find_base(
    base: Origin, wanted: Iterable[Wanted], *, revision: str | None = None, report: Report | None = None
) -> Location:
    """As `find_checkpoint`, of the base alone."""
    return _find([(base, revision, list(wanted))], report)[0]


def find_unet(unet: Origin, precision: str, *, revision: str | None = None, report: Report | None = None) -> Location:
    """As `find_checkpoint`, of the UNet alone."""
    return _find([(unet, revision, [("unet", precision)])], report)[0]


def weights_of(names: Collection[str], network: str, precision: str) -> list[str]:
    """Which of the files `names` hold the weights of `network`: the variant nearest to `precision` that is there.

    Decided by what there is, never by what cannot be read: a damaged file is an error, not a reason to take another.

    Raises:
        UserError: there are no safetensors of it, or only some of several parts.
    """
    prefix, stem = _prefix(network), NETWORKS[network].stem
    variants: dict[str | None, dict[str, str | None]] = {}
    for name in sorted(names):
        match = _WEIGHTS.fullmatch(name.removeprefix(prefix)) if name.startswith(prefix) else None
        if match and match["stem"] == stem:
            variants.setdefault(match["variant"] or match["late_variant"], {})[name] = match["parts"]
    # The hub has the UNet in one file, without a variant, whatever its precision.
    order = ("fp16", None) if precision == "fp16" and network != "unet" else (None, "fp16")
    found = next((variants[variant] for variant in order if variant in variants), None)
    if not found:
        raise UserError(f"no {prefix}{stem}.safetensors")
    if whole := [name for name, parts in found.items() if parts is None]:
        return whole[:1]
    count = int(next(parts for parts in found.values() if parts))
    if len(found) != count:
        raise UserError(f"only {len(found)} of the {count} parts of {prefix}{stem}.safetensors")
    return list(found)


def _prefix(network: str) -> str:
    folder = NETWORKS[network].subfolder
    return f"{folder}/" if folder else ""


def _needed(names: Collection[str], wanted: Iterable[Wanted]) -> list[str]:
    """Those of the files `names` that the wanted parts need."""
    needed = []
    for part, precision in wanted:
        if part in CONFIGS:
            needed.append(CONFIGS[part])
            continue
        weights = weights_of(names, part, precision)
        needed += [f"{_prefix(part)}config.json", *weights]
        if len(weights) > 1:
            # transformers reads there which of them has which weight.
            needed += [
                name for name in names if name.startswith(f"{_prefix(part)}{NETWORKS[part].stem}.safetensors.index")
            ]
    if missing := [name for name in needed if name not in names]:
        raise UserError(f"no {missing[0]}")
    return list(dict.fromkeys(needed))


def _find(requests: list[tuple[Origin, str | None, list[Wanted]]], report: Report | None) -> list[Location]:
    """The places of several sources. All are looked for before anything is fetched."""
    report = report or to_stderr
    places: list[Location] = []
    snapshots = []
    for source, revision, wanted in requests:
        local = _local(source, wanted)
        if local and revision:
            raise UserError(f"{source} is on this machine and has no revision {revision}; leave the revision out.")
        if local:
            _check_local(local, source, wanted)
            places.append(Location(local))
            continue
        try:
            validate_repo_id(str(source))
        except HFValidationError as error:
            raise UserError(f"There is no {source}; give a folder that is there, or a hub id (owner/name).") from error
        snapshot = ask_hub(str(source), revision, functools.partial(_choose, source, wanted), report)
        snapshots.append((snapshot, revision))
        places.append(Location(snapshot.folder, snapshot.commit))
    fetch(snapshots, report)
    return places


def _choose(source: Origin, wanted: list[Wanted], names: Collection[str]) -> list[str]:
    try:
        return _needed(names, wanted)
    except UserError as error:
        part = "UNet" if _is_unet(wanted) else "base"
        raise UserError(
            f"{source} is no {part} of DepthCrafter in the Hugging Face layout: it has {error}; "
            "give a folder or a hub id that has it (pickles are never read)."
        ) from error


def _check_local(local: Path, source: Origin, wanted: list[Wanted]) -> None:
    if local.is_dir():
        folders = {Path(local, NETWORKS[part].subfolder if part in NETWORKS else part) for part, _ in wanted}
        files = [path for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_file()]
        _choose(source, wanted, [path.relative_to(local).as_posix() for path in files])
    elif not _is_unet(wanted) or local.suffix != ".safetensors":
        raise UserError(
            f"{source} is a file; give a folder in the Hugging Face layout, or for the UNet a file of safetensors "
            "(pickles are never read)."
        )


def _is_unet(wanted: list[Wanted]) -> bool:
    return any(part == "unet" for part, _ in wanted)


def _local(source: Origin, wanted: list[Wanted]) -> Path | None:
    """The folder or file of a source that needs no hub."""
    if own := _own_folder(str(source)):
        return own / "unet" if _is_unet(wanted) else own
    path = Path(source)
    return path if path.exists() else None


@functools.cache
def _own_folder(source: str) -> Path | None:
    """The folder of `nano`, or of `random:CONFIG[:SEED]`, made if need be; None for any other source."""
    if source == "nano":
        return BUNDLED / "checkpoint"
    if not source.startswith("random:"):
        return None
    from depthcrafter.layout import CONFIGS as SIZES
    from depthcrafter.random_checkpoint import make_checkpoint

    name, _, seed = source.removeprefix("random:").partition(":")
    if name not in SIZES or not (seed or "0").isdecimal():
        raise UserError(f"There is no checkpoint {source}; the known ones are nano, random:{', random:'.join(SIZES)}.")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "depthcrafter-rt"
    folder = cache / f"random-{name}-{seed or 0}"
    if not (folder / "model_index.json").exists():
        make_checkpoint(folder, name, int(seed or 0))
    return folder
