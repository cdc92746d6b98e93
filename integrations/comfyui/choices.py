"""What "Depth of a Video" lets one choose: options of `dc_rt.options` with their defaults, ranges and help, as widgets.

Knows nothing of ComfyUI: `widgets` makes inputs of these rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dc_rt.engine import CPU_OFFLOADS, backend_names
from dc_rt.errors import UserError, option, worded
from dc_rt.models import ModelOptions
from dc_rt.options import SIZE_MULTIPLE, Options, Outputs, Rule, Sampling, Source, default_outputs, rules
from dc_rt.outputs import all_outputs

# `seed` is none of them: ComfyUI draws another one after every prompt of an input that is called so, and a run of hours
# would begin anew.
_OPTIONS = (
    *("max_res", "steps", "sampler", "window_size", "overlap", "target_fps", "process_length", "shots", "size"),
    *("colormap", "depth_codec"),
)
_SHOTS = ("none", "auto")  # a list of shots goes into more_options
_STEPS = {"max_res": SIZE_MULTIPLE}
_FRACTION = 0.01
# Where an option has no bound: ComfyUI's page takes one of its own if it is told none.
_MOST = {int: 2**31 - 1, float: 1e5}
MORE = "more_options"
# Of what the node decides itself.
_ITS_OWN = ("result_name",)
_MODEL = {
    "engines": "Folder of the engine set; empty for $DC_RT_ENGINES, or the newest in ./engines, or the bundled one.",
    "backend": "What runs the engines.",
    "cpu_offload": "Save GPU memory: one engine at a time, or streamed weights.",
    "fit": "Choose engine set, offload and size for the GPU memory that is free.",
}


@dataclass(frozen=True)
class Widget:
    """One input that is typed or chosen.

    Attributes:
        name: the option's, as Python has it.
        default: also says its type.
        help: what it does, in a phrase.
        least, most, step: of numbers.
        choices: of text, if there are only these.
    """

    name: str
    default: Any
    help: str
    least: float = 0
    most: float = 0
    step: float = 1
    choices: tuple[str, ...] = ()


def widgets() -> list[Widget]:
    """All that are derived, in the order in which they are shown."""
    known = {name: (rule, default) for each in (Source, Sampling, Outputs) for name, rule, default in rules(each)}
    return [*(_of_option(name, *known[name]) for name in _OPTIONS), *_of_outputs(), *_of_the_model()]


def options_of(inputs: Mapping[str, Any]) -> Options:
    """The options of a run, by the node's inputs; depth in grey and in colours is always written.

    Raises:
        UserError: an input has a value that there is none of, or `more_options` cannot be read.
    """
    chosen = {name: inputs[name] for name in (*_OPTIONS, *_flagged()) if name in inputs}
    options = Options.by_name(chosen | more_options(inputs.get(MORE, "")))
    names = (*default_outputs(), *options.outputs.names)
    return replace(options, outputs=replace(options.outputs, names=names))


def models_of(inputs: Mapping[str, Any]) -> ModelOptions:
    """Which model runs, by the node's inputs. Raises `UserError` for values that do not go together."""
    chosen = {name: inputs[name] for name in _MODEL if name in inputs}
    models = ModelOptions(**chosen | {"engines": chosen.get("engines", "").strip() or None})
    models.check()
    return models


def more_options(text: str) -> dict[str, str]:
    """Options by name from lines such as `exr=nuke`. Raises `UserError` for a line that is none."""
    found = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, sign, value = line.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        if not sign or not name:
            raise UserError(f"{option(MORE)} has a line {line!r}; write options as name=value, a line each.")
        if name in _ITS_OWN or name == "name":
            raise UserError(
                f"{option(MORE)} cannot set {name}, which follows from the video and the options; leave it out."
            )
        found[name] = value.strip()
    return found


def in_the_nodes_words(error: UserError) -> str:
    """The sentence with its options as the node's inputs are called."""
    inputs = {*_OPTIONS, *_flagged(), *_MODEL, MORE, "start", "count", "record", "folder", "video_path", "pictures"}

    def word(name: str, typed: str, value: str) -> str:
        if name == "save_folder":
            return "folder"
        plain = f"{name}={typed or value}" if value else name
        return plain if name in inputs else f"{plain} in {MORE}"

    return worded(error.sentence, word)


def _of_option(name: str, rule: Rule, default: Any) -> Widget:
    text = worded(rule.help, lambda name, typed, value: f"{name}={typed}" if value else name)
    if isinstance(default, str):
        return Widget(name, default, text, choices=_SHOTS if name == "shots" else rule.choices)
    if isinstance(default, bool):
        return Widget(name, default, text)
    least = max(rule.least, rule.above)
    if rule.instead is not None:
        least = min(least, rule.instead)
    step = _STEPS.get(name, 1 if isinstance(default, int) else _FRACTION)
    return Widget(
        name,
        default,
        text,
        least if math.isfinite(least) else -_MOST[type(default)],
        rule.most if math.isfinite(rule.most) else _MOST[type(default)],
        step,
    )


def _flagged() -> dict[str, str]:
    """Outputs that a flag adds: what is written, by the flag's name."""
    rows = (row for row in all_outputs().values() if row.flag)
    return {str(row.flag).lstrip("-").replace("-", "_"): row.help for row in rows}


def _of_outputs() -> Iterator[Widget]:
    for name, help_ in _flagged().items():
        words = worded(help_, lambda name, typed, value: f"{name}={typed}" if value else name)
        yield Widget(name, False, f"Also write {words}.")


def _of_the_model() -> Iterator[Widget]:
    defaults = ModelOptions()
    choices = {"backend": tuple(backend_names()), "cpu_offload": CPU_OFFLOADS}
    for name, help_ in _MODEL.items():
        default = getattr(defaults, name)
        yield Widget(name, "" if default is None else default, help_, choices=choices.get(name, ()))
