"""The options of `dc_rt.options` as those of a command: derived, so that each is stated once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from dc_rt.options import Outputs, Sampling, Source, flags_of, rules
from dc_rt.outputs import all_outputs

Values = dict[str, Any]


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Sampling`, `Source` and `Outputs`, which it takes as `values`, by name."""

    def run(**given: Any) -> None:
        command(values={name: given.pop(name) for name in options}, **given)

    options = {parameter.name: parameter for parameter in _parameters()}
    own = [
        parameter
        for name, parameter in inspect.signature(command, eval_str=True).parameters.items()
        if name != "values"
    ]
    at = next((i for i, parameter in enumerate(own) if parameter.name == "save_folder"), len(own) - 1) + 1
    signature = inspect.Signature([*own[:at], *options.values(), *own[at:]])
    run.__signature__ = signature  # type: ignore[attr-defined]  # what typer reads
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in signature.parameters.values()}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def options_from(values: Values) -> tuple[Sampling, Source, Outputs]:
    """The options that were typed."""
    asked = [name.strip() for name in (values["outputs"] or "").split(",") if name.strip()]
    flagged = [name for name, row in all_outputs().items() if row.flag and values[_variable(row.flag)]]
    names = tuple(asked or [name for name, row in all_outputs().items() if row.is_default]) + tuple(flagged)
    return Sampling(**_of(Sampling, values)), Source(**_of(Source, values)), Outputs(names, **_of(Outputs, values))


def _of(options: type, values: Values) -> Values:
    return {name: values[name] for name, _, _ in rules(options)}


def _parameters() -> list[inspect.Parameter]:
    """One for each option; one for all outputs, and one for each that has a flag of its own."""
    table = ", ".join(all_outputs())
    found = [
        _parameter(name, rule, default) for options in (Source, Sampling) for name, rule, default in rules(options)
    ]
    found.append(_make("outputs", str, None, typer.Option(help=f"What to write, of {table}.", metavar="NAME,...")))
    for row in all_outputs().values():
        if row.flag:
            help = f"Also write {'NAME/frame_0000' if row.is_frames else 'NAME'}{row.suffix}: {row.help}."
            found.append(_make(_variable(row.flag), bool, False, typer.Option(row.flag, help=help)))
    return [*found, *(_parameter(name, rule, default) for name, rule, default in rules(Outputs))]


def _parameter(name: str, rule: Any, default: Any) -> inspect.Parameter:
    metavar = "|".join(rule.choices) or None
    return _make(name, type(default), default, typer.Option(*flags_of(name), help=rule.help, metavar=metavar))


def _make(name: str, kind: type, default: Any, shown: Any) -> inspect.Parameter:
    annotation: Any = Annotated[kind | None if default is None else kind, shown]
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)


def _variable(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")
