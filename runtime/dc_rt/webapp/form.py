"""The options as the page shows them: which come first, and what they are called. All else is of `dc_rt.options`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dc_rt.errors import UserError, worded
from dc_rt.options import Outputs, Sampling, Source, rules
from dc_rt.outputs import all_outputs
from dc_rt.serve import choices

FIRST = ("max_res", "steps", "sampler", "target_fps")
"""Those that people change most."""
WRITTEN_FIRST = ("size", "depth_codec", "exr", "stereo", "audio", "shots")
"""Of what is written, and of what is found on the way."""
SAMPLED = ("window_size", "overlap", "seed", "guidance_scale", "process_length")
PANELS = (("What is written", ("outputs", *WRITTEN_FIRST)), ("Windows and noise", SAMPLED))
"""Panels by their titles; options in none of them, nor among the first, are in one more."""

_LABELS = {
    "max_res": "Largest side",
    "target_fps": "Frame rate",
    "process_length": "Frames at most",
    "window_size": "Frames a window",
    "overlap": "Overlap of windows",
    "size": "Size of the results",
    "depth_codec": "Codec of the depth video",
    "exr": "EXR for",
    "audio": "Sound",
    "stereo": "Stereo layout",
    "dataset": "Size preset",
    "disparity": "Stereo shift",
    "convergence": "Stereo convergence",
}
_CAPITALS = {"exr": "EXR", "fps": "FPS"}
_OF_IMAGES = ("fps", "view", "exposure")  # of sequences of images, which the page takes none of
# What is typed for text that has some usual values; any other may be typed too.
_USUAL = {"size": ("model", "source"), "range": ("clip", "shot", "0,1")}


def rows() -> dict[str, dict[str, Any]]:
    """The options that there are by name, as `dc_rt.serve.choices.table` has them, but in the page's words."""
    helped = {name: plain(rule.help) for kind in (Sampling, Source, Outputs) for name, rule, _ in rules(kind)}
    found = {}
    for row in choices.table():
        name = row["name"]
        if name == "outputs":
            about = {each: plain(all_outputs()[each].help) for each in row["choices"]}
            found[name] = row | {"choices_help": about}
        elif name not in _OF_IMAGES:
            found[name] = row | {"help": helped[name]}
    return found


def panels() -> Iterator[tuple[str, tuple[str, ...]]]:
    """All options but the first ones, by panels."""
    yield from PANELS
    taken = {*FIRST, *(name for _, names in PANELS for name in names)}
    yield "More", tuple(name for name in rows() if name not in taken)


def label_of(name: str) -> str:
    """What an option is called on the page."""
    text = _LABELS.get(name) or " ".join(_CAPITALS.get(word, word) for word in name.split("_"))
    return text[0].upper() + text[1:]


def usual_values(name: str) -> tuple[str, ...]:
    """Of an option that takes text: the values that most want; empty where there are none."""
    return _USUAL.get(name, ())


def given(names: list[str], values: tuple[Any, ...]) -> dict[str, Any]:
    """The options as the page's fields have them; one that was emptied has its default."""
    table = rows()
    found = {}
    for name, value in zip(names, values, strict=True):
        if value is None or value == "":
            continue
        is_whole = table[name]["kind"] == "integer" and isinstance(value, float) and value.is_integer()
        found[name] = int(value) if is_whole else value
    return found


def said(error: UserError) -> str:
    """What is wrong, in the page's words for options."""
    return plain(error.sentence)


def plain(sentence: str) -> str:
    """A sentence whose options are called as on the page."""
    return worded(sentence, lambda name, typed, value: f"“{label_of(name)}”{f' {typed}' if typed else ''}")
