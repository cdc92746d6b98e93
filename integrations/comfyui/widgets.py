"""ComfyUI's inputs of rows that know nothing of it."""

from __future__ import annotations

from collections.abc import Iterable

from comfy_api.latest import io

from .choices import Widget


def as_inputs(widgets: Iterable[Widget]) -> list[io.Input]:
    """An input of each, of the type that its default has; a workflow need not state those that are as they are."""
    return [_input(widget) for widget in widgets]


def _input(widget: Widget) -> io.Input:
    shared = {"default": widget.default, "tooltip": widget.help, "optional": True}
    if isinstance(widget.default, bool):
        return io.Boolean.Input(widget.name, **shared)
    if isinstance(widget.default, str):
        if widget.choices:
            return io.Combo.Input(widget.name, options=list(widget.choices), **shared)
        return io.String.Input(widget.name, **shared)
    kind = io.Int if isinstance(widget.default, int) else io.Float
    limits = (type(widget.default)(value) for value in (widget.least, widget.most, widget.step))
    return kind.Input(widget.name, **dict(zip(("min", "max", "step"), limits, strict=True)), **shared)
