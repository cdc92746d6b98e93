"""The options of `dc_rt.options` as those of a command: derived, so that each is stated once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Annotated, Any

import typer

from dc_rt.errors import UserError, option, worded
from dc_rt.options import Outputs, Sampling, Source, as_flag, flags_of, rules
from dc_rt.outputs import all_outputs

Values = dict[str, Any]

_PANELS = {Source: "What is read", Sampling: "How depth is estimated", Outputs: "What is written"}


def with_options(
    *classes: type, only: Collection[str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of `classes`, of those in `dc_rt.options`: it takes them as `values`, by name.

    `only` are the names of some of them, if not all are wanted.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(**given: Any) -> None:
            command(values={name: given.pop(name) for name in options}, **given)

        options = {
            parameter.name: parameter for parameter in _parameters(classes) if only is None or parameter.name in only
        }
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

    return decorate


def with_options_of(
    other: Callable[..., None], *without: str, **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command that takes anything the parameters of another one, after its own, which replace those of a name.

    Args:
        other: the command.
        without: the names of parameters of its that are left out.
        defaults: by name: those that are others than the other command's.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = {
            name: parameter
            for name, parameter in inspect.signature(command, eval_str=True).parameters.items()
            if parameter.kind is not parameter.VAR_KEYWORD
        }
        taken = [
            parameter.replace(default=defaults.get(name, parameter.default))
            for name, parameter in inspect.signature(other).parameters.items()
            if name not in (*own, *without)
        ]
        parameters = [*own.values(), *taken]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


def with_parameters_of(other: Callable[..., None], *names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command some of the parameters of another one, behind its own: it takes them as `shared`, by name."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(**given: Any) -> None:
            command(shared={name: given.pop(name) for name in names}, **given)

        own = inspect.signature(command, eval_str=True).parameters
        taken = inspect.signature(other).parameters
        signature = inspect.Signature(
            [*(own[name] for name in own if name != "shared"), *(taken[name] for name in names)]
        )
        run.__signature__ = signature  # type: ignore[attr-defined]  # what typer reads
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in signature.parameters.values()}
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return decorate


def processes_of(workers: int | None, devices: str) -> tuple[int, tuple[str, ...]]:
    """How many processes, and on which devices if not on all; raises `UserError` where the two do not go together."""
    named = tuple(device.strip() for device in devices.split(",") if device.strip())
    if named and workers not in (None, len(named)):
        raise UserError(
            f"{option('devices', devices)} is a process for each of {len(named)}, not {workers}; leave "
            f"{option('workers')} out."
        )
    return len(named) or workers or 1, named


def options_from(values: Values) -> tuple[Sampling, Source, Outputs]:
    """The options that were typed, of a command that has all three."""
    return Sampling(**_of(Sampling, values)), Source(**_of(Source, values)), outputs_from(values)


def outputs_from(values: Values) -> Outputs:
    """Those of what is written, of a command that has some of them."""
    if "outputs" not in values:
        return Outputs(**_of(Outputs, values))
    asked = [name.strip() for name in (values["outputs"] or "").split(",") if name.strip()]
    flagged = [name for name, row in all_outputs().items() if row.flag and values[_variable(row.flag)]]
    names = tuple(asked or [name for name, row in all_outputs().items() if row.is_default]) + tuple(flagged)
    return Outputs(names, **_of(Outputs, values))


def _of(options: type, values: Values) -> Values:
    """The values of the class's options, as far as the command has them."""
    return {name: values[name] for name, _, _ in rules(options) if name in values}


def _parameters(classes: Sequence[type]) -> list[inspect.Parameter]:
    """One for each option; with those of `Outputs` one for all outputs, and one for each that has a flag of its own."""
    found: list[inspect.Parameter] = []
    for options in classes:
        if options is Outputs:
            found += _output_parameters()
        found += [_parameter(name, rule, default, _PANELS[options]) for name, rule, default in rules(options)]
    return found


def _output_parameters() -> Iterator[inspect.Parameter]:
    table, panel = ", ".join(all_outputs()), _PANELS[Outputs]
    shown = typer.Option(help=f"What to write, of {table}.", metavar="NAME,...", rich_help_panel=panel)
    yield _make("outputs", str, None, shown)
    for row in all_outputs().values():
        if row.flag:
            help = f"Also write {row.path}: {worded(row.help, as_flag)}."
            yield _make(_variable(row.flag), bool, False, typer.Option(row.flag, help=help, rich_help_panel=panel))


def _parameter(name: str, rule: Any, default: Any, panel: str) -> inspect.Parameter:
    metavar = "|".join(rule.choices) or rule.metavar or None
    help = worded(rule.help, as_flag)
    shown = typer.Option(*flags_of(name), help=help, metavar=metavar, rich_help_panel=panel)
    return _make(name, type(default), default, shown)


def _make(name: str, kind: type, default: Any, shown: Any) -> inspect.Parameter:
    annotation: Any = Annotated[kind | None if default is None else kind, shown]
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)


def _variable(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")
