"""The options that a client may set: those of a run, but for what names files here or has no use for a service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dc_rt.errors import UserError, option, worded
from dc_rt.options import PIPE_OPTIONS, Options, Outputs, Rule, Sampling, Source, default_outputs, rules
from dc_rt.outputs import STREAM, all_outputs

# Of files and pipes on this machine; `keep` says nothing that the output `raw` does not.
_OWN = ("result_name", "overwrite", "keep", *PIPE_OPTIONS)
_SHOTS = ("none", "auto")  # any other is a file here
_GROUPS = {"sampling": Sampling, "source": Source, "outputs": Outputs}
_KINDS = {bool: "boolean", int: "integer", float: "number"}


def chosen(values: Mapping[str, Any]) -> Options:
    """The options that a client asks for.

    Raises:
        UserError: there is no such option, or a client may not set it, or its value is none that it may have.
    """
    try:
        options = Options.by_name(values)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError("The options are not as they must be; GET /options has their kinds.") from error
    defaults = Options()
    for group in _GROUPS:
        for name, _, _ in rules(_GROUPS[group]):
            if name in _OWN and getattr(getattr(options, group), name) != getattr(getattr(defaults, group), name):
                raise UserError(f"{option(name)} is not for clients to set; leave it out.")
    if options.source.shots not in _SHOTS:
        raise UserError(f"{option('shots')} must be one of {', '.join(_SHOTS)}; a list of shots cannot be sent.")
    if STREAM in options.outputs.names:
        raise UserError(f"There is no {option('outputs', STREAM)} here; choose of {', '.join(_names())}.")
    return options


def shown(options: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run's options by name, those that a client may set."""
    return {name: value for name, value in options.items() if name not in _OWN}


def table() -> Iterator[dict[str, Any]]:
    """What there is to choose: the options with their kinds, ranges and defaults, as `GET /options` has them."""
    for group, options in _GROUPS.items():
        if options is Outputs:
            yield _outputs()
        for name, rule, default in rules(options):
            if name not in _OWN:
                yield _row(group, name, rule, default)


def _row(group: str, name: str, rule: Rule, default: Any) -> dict[str, Any]:
    choices = list(_SHOTS if name == "shots" else rule.choices)
    kind = "choice" if choices else _KINDS.get(type(default), "text")
    limits = {limit: _finite(getattr(rule, limit)) for limit in ("least", "above", "most", "instead")}
    return {"name": name, "group": group, "kind": kind, "default": default, **limits, "choices": choices or None} | {
        "help": worded(rule.help, _plain)
    }


def _outputs() -> dict[str, Any]:
    limits = dict.fromkeys(("least", "above", "most", "instead"))
    return {"name": "outputs", "group": "outputs", "kind": "names", "default": list(default_outputs()), **limits} | {
        "choices": _names(),
        "choices_help": {name: worded(all_outputs()[name].help, _plain) for name in _names()},
        "help": "What is written.",
    }


def _names() -> list[str]:
    return [name for name in all_outputs() if name != STREAM]


def _plain(name: str, typed: str, value: str) -> str:
    return f"{name}={typed}" if value else name


def _finite(limit: float | None) -> float | None:
    return limit if limit is not None and abs(limit) != float("inf") else None
