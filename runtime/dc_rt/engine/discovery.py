"""Which engine set to use: the one that the user names, else the newest whose model it is that can run the video."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dc_rt.engine.compatibility import Unavailable, check_gpu, check_library, is_target
from dc_rt.engine.manifest import FLAVOURS, MANIFEST, OTHER_PROFILE, Manifest, Profile
from dc_rt.errors import UserError, option
from dc_rt.gpu import Card, find_card, planned_card_line
from dc_rt.options import SIZE_MULTIPLE, default_overlap

ENVIRONMENT = "DC_RT_ENGINES"
ENGINES_FOLDER = Path("engines")
BUNDLED = Path(__file__).parent.parent / "bundled"
LARGEST_MAX_RES = 4096  # that is looked at when another one than the user's is to fit


@dataclass(frozen=True)
class Wanted:
    """What an engine set has to run: frames of a size in pixels, in windows of so many frames.

    `size_at` gives the height and width that another `max_res` would make of them; None where that changes nothing.
    """

    height: int
    width: int
    window_size: int
    overlap: int = 0
    max_res: int = 0
    size_at: Callable[[int], tuple[int, int]] | None = None


@dataclass(frozen=True)
class Choice:
    """An engine set, and why it was chosen: words in which options are marked (see `dc_rt.errors.worded`)."""

    folder: Path
    reason: str


@dataclass(frozen=True)
class Candidates:
    """The sets that may be chosen from, all of one model.

    Attributes:
        sets: first the one to prefer, which `reason` gives the reason for.
        others: sets of the same model that may be named, and not chosen: the user has named one.
        skipped: what is wrong with the sets of ./engines that were left out, each in a sentence (options marked).
    """

    sets: Mapping[Path, Manifest]
    reason: str
    others: Mapping[Path, Manifest] = field(default_factory=dict)
    skipped: Mapping[Path, str] = field(default_factory=dict)


def choose_engines(named: Path | None) -> tuple[Path, str]:
    """The set to prefer, and in words why: the named one, $DC_RT_ENGINES, the newest in ./engines, the bundled."""
    if where := _named(named):
        return where
    candidates = find_candidates(None)
    return next(iter(candidates.sets)), candidates.reason


def find_candidates(named: Path | None) -> Candidates:
    """The sets to choose from: the one that is named, by the argument or by $DC_RT_ENGINES, alone; else the newest
    complete one in ./engines, then the others there that are of its model, newest first, the bundled one at last.

    Raises:
        UserError: the named set has no manifest, or one that cannot be read.
    """
    found, skipped = find_engines(ENGINES_FOLDER)
    newest_first = sorted(found, key=lambda folder: found[folder].created_at, reverse=True)
    known = {folder: found[folder] for folder in newest_first} | {BUNDLED: Manifest.read(BUNDLED)}
    if where := _named(named):
        folder, reason = where
        manifest = Manifest.read(folder)
        others = {
            other: known[other]
            for other in known
            if other.resolve() != folder.resolve() and known[other].is_of_the_model_of(manifest)
        }
        return Candidates({folder: manifest}, reason, others)
    first = next(iter(known))
    if first == BUNDLED:
        complete = "complete " if skipped else ""
        reason = (
            f"the bundled set, as there is no {option('engines')}, no ${ENVIRONMENT} and no {complete}set in "
            f"./{ENGINES_FOLDER}"
        )
    else:
        reason = f"the newest complete set in ./{ENGINES_FOLDER}"
    sets = {folder: manifest for folder, manifest in known.items() if manifest.is_of_the_model_of(known[first])}
    return Candidates(sets, reason, skipped=skipped)


def choose(candidates: Candidates, wanted: Wanted, backend: str = "auto", loaded: Choice | None = None) -> Choice:
    """The set to run `wanted` with: the one that is loaded if it can, else the first candidate that can.

    Raises:
        UserError: none can; with what would make it fit, or which other set is of the same model and can.
    """
    if loaded and not obstacle(loaded.folder, candidates.sets[loaded.folder], wanted, backend):
        return loaded
    preferred = next(iter(candidates.sets))
    obstacles = {}
    for folder, manifest in candidates.sets.items():
        obstacles[folder] = obstacle(folder, manifest, wanted, backend)
        if obstacles[folder]:
            continue
        if folder == preferred:
            return Choice(folder, candidates.reason)
        what = "the bundled set" if folder == BUNDLED else "the newest set"
        reason = f"{what} of the same model that runs the video; {preferred} is newer, and {obstacles[preferred]}"
        return Choice(folder, reason)
    if not _profile_of(preferred, candidates.sets[preferred], backend).misfit(
        wanted.height, wanted.width, wanted.window_size
    ):
        return Choice(preferred, candidates.reason)  # whose loading tells what is wrong
    raise UserError(_refusal(candidates, wanted, backend))


def find_engines(folder: Path) -> tuple[dict[Path, Manifest], dict[Path, str]]:
    """The complete sets among the subfolders of `folder`; and of those that have a manifest and are none, why.

    Complete is a set of which all files are there of what it can be run as; nothing is hashed.
    """
    complete: dict[Path, Manifest] = {}
    skipped: dict[Path, str] = {}
    try:
        subfolders = sorted(path for path in folder.iterdir() if os.path.lexists(path / MANIFEST))
    except OSError:  # there is no such folder, or it is not for us to see
        return {}, {}
    for path in subfolders:
        try:
            manifest = Manifest.read(path)
            _check_complete(path, manifest)
        except UserError as error:
            skipped[path] = error.sentence
        else:
            complete[path] = manifest
    return complete, skipped


def list_engines(folder: Path) -> dict[Path, Manifest]:
    """The complete sets of `find_engines`."""
    return find_engines(folder)[0]


def runs_as(folder: Path, manifest: Manifest, backend: str) -> Manifest:
    """The set as `dc_rt.engine.load_engines` opens it, as far as that can be told without reading its files.

    Where $DC_RT_GPU names another card to plan for, as it would be opened there.

    Raises:
        Unavailable: `backend` is "tensorrt", which cannot run here.
    """
    if backend not in ("auto", "tensorrt"):
        return manifest
    if planned_card_line():
        return _runs_on(find_card(), folder, manifest, backend)
    failure = Unavailable("this set has no engines for it", f"build them with `dc-export build {folder}`")
    for flavour in [flavour for flavour in FLAVOURS if flavour in manifest.builds]:
        try:
            check_library(folder, manifest, flavour)
            check_gpu(folder, manifest.builds[flavour], flavour)
            return manifest.built(flavour)
        except Unavailable as error:
            failure = error
    if backend == "tensorrt":
        raise failure
    return manifest


def _runs_on(card: Card | None, folder: Path, manifest: Manifest, backend: str) -> Manifest:
    """The set on a card that is not here, whatever is installed here."""
    for flavour in [flavour for flavour in FLAVOURS if flavour in manifest.builds]:
        build = manifest.builds[flavour]
        if card and build.whole and is_target(card.capability, build.compute_capabilities):
            return manifest.built(flavour)
    if backend == "tensorrt":
        raise Unavailable(
            f"this set has no engines for {card or 'a machine without a GPU'}", f"run `dc-export build {folder}`"
        )
    return manifest


def fitting_max_res(profile: Profile, wanted: Wanted) -> int | None:
    """The `max_res` nearest to the user's at which the profile can run the video; None where there is none."""
    if wanted.size_at is None:
        return None
    every = range(SIZE_MULTIPLE, LARGEST_MAX_RES + 1)
    # A multiple of 64 if one will do: it is the longer side.
    for max_res in sorted(every, key=lambda value: (value % SIZE_MULTIPLE != 0, abs(value - wanted.max_res))):
        if not profile.misfit(*wanted.size_at(max_res)):
            return max_res
    return None


def _named(named: Path | None) -> tuple[Path, str] | None:
    if named is not None:
        return named, f"named by {option('engines')}"
    if environment := os.environ.get(ENVIRONMENT):
        return Path(environment), f"named by ${ENVIRONMENT}"
    return None


def _check_complete(folder: Path, manifest: Manifest) -> None:
    """Raise `UserError` unless the set is complete as something that it can be run as."""
    failure: UserError | None = None
    for variant in manifest.variants():
        try:
            variant.check_complete(folder)
            return
        except UserError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _profile_of(folder: Path, manifest: Manifest, backend: str) -> Profile:
    try:
        return runs_as(folder, manifest, backend).profile
    except Unavailable:
        return next((variant.profile for variant in manifest.variants() if variant.flavour != "onnx"), manifest.profile)


def obstacle(folder: Path, manifest: Manifest, wanted: Wanted, backend: str) -> str:
    """Why a set cannot run what is wanted, in a clause about it; empty where it can."""
    try:
        running = runs_as(folder, manifest, backend)
        running.check_complete(folder)
    except Unavailable:
        return "has no engines for TensorRT that run here"
    except UserError:
        return f"lacks files for {backend}"
    profile = running.profile
    if profile.shape_of(wanted.height, wanted.width) is None:
        alone = " alone" if len(profile.shapes) == 1 and profile.shapes[0].is_fixed else ""
        return f"runs {', '.join(map(str, profile.shapes))}{alone}"
    if wanted.window_size > profile.frames.max:
        return f"runs windows of up to {profile.frames.max} frames"
    return ""


def _refusal(candidates: Candidates, wanted: Wanted, backend: str) -> str:
    """What is wrong with the preferred set, and the fix, in a sentence."""
    preferred, manifest = next(iter(candidates.sets.items()))
    size = (wanted.height, wanted.width, wanted.window_size)
    remedies = []
    for folder, other in candidates.sets.items():
        if options := _options_for(_profile_of(folder, other, backend), wanted):
            which = "" if folder == preferred else f", which {folder} can run"
            remedies.append(f"try {options}{which}")
            break
    for folder, other in candidates.others.items():
        if not obstacle(folder, other, wanted, backend):
            remedies.append(f"use {option('engines', folder)}, a set of the same model that runs it")
            break
    if backend == "auto" and not manifest.profile.misfit(*size):
        remedies.append(f"use {option('backend', 'onnx')}, whose graphs in this set run it")
    if not remedies:
        if wanted.size_at is not None and wanted.window_size <= manifest.profile.frames.max:
            remedies.append(f"no {option('max_res')} fits")
        remedies.append(OTHER_PROFILE)
    return f"{_profile_of(preferred, manifest, backend).misfit(*size)}; {', or '.join(remedies)}."


def _options_for(profile: Profile, wanted: Wanted) -> str:
    """The options with which a profile could run the video; empty where there are none."""
    options = []
    if profile.misfit(wanted.height, wanted.width):
        max_res = fitting_max_res(profile, wanted)
        if max_res is None:
            return ""
        options.append(option("max_res", max_res))
    if wanted.window_size > (most := profile.frames.max):
        options.append(option("window_size", most))
        if wanted.overlap >= most:
            options.append(option("overlap", default_overlap(most)))
    return " ".join(options)
