"""A part of a graph computed slice by slice, so that what lies within it exists for one slice at a time.

TensorRT holds whole tensors: where a layer mixes only some of the axes, the rest can be taken in slices. Slices need a
size that TensorRT knows, or it takes each to be as large as the whole. The pixels (their number is a multiple of 8) are
cut in equal parts; the frames, whose number need not divide, in parts as large as the profile lets an eighth of them
be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from dc_export.rewrite.graph import (
    PIECES,
    Writer,
    divisor,
    nodes_between,
    present,
    producer,
    remove,
    shape_of,
    substitute,
)


def slice_region(model: ir.Model, sources: Sequence[ir.Value], sink: ir.Value, axis: int, pieces: int) -> None:
    """Compute `sink` from `sources` in equal `pieces` of `axis`, which all have and no node between them mixes.

    What comes in from beside `sources` is shared by all pieces, so it must not have the axis.
    """
    nodes = nodes_between(sources, sink)
    for node in nodes:
        if node.op_type == "Reshape":
            _make_relative(model, node)
    last = producer(sink)
    at = Writer(model.graph, last)

    def compute(*parts: ir.Value) -> ir.Value:
        values = dict(zip(sources, parts, strict=True))
        for node in nodes:
            copy = at.copy(node, [values.get(value, value) if value else None for value in node.inputs])
            values.update(zip(node.outputs, copy.outputs, strict=True))
        return values[sink]

    result = in_slices(at, sources, axis, pieces, compute)
    substitute(last, result)
    remove(model, *reversed(nodes))


def slice_over_frames(model: ir.Model, sources: Sequence[ir.Value], sink: ir.Value) -> None:
    """Compute `sink` from `sources` in slices of the frames, which all have first and no node between them mixes.

    Slices are of one size, an eighth of the frames rounded up, so that TensorRT knows the largest from the profile.
    Past the last frame there is that one again, and the results are cut off.
    """
    nodes = nodes_between(sources, sink)
    for node in nodes:
        if node.op_type == "Reshape":
            _make_relative(model, node)
    _take_sizes_from(model, sources, nodes)
    frames = shape_of(sources[0])[0]
    last = producer(sink)
    at = Writer(model.graph, last)
    inside = {output for node in nodes for output in node.outputs}
    inputs = dict.fromkeys(value for node in nodes for value in node.inputs if value is not None)
    cut = [value for value in inputs if value not in inside and value.shape and shape_of(value)[0] == frames]
    parts: list[ir.Value] = []
    for index in _frame_indices(at, sources[0], PIECES):
        index = _after(at, parts[-1], index) if parts else index
        values = {value: at("Gather", value, index, axis=0) for value in cut}
        for node in nodes:
            copy = at.copy(node, [values.get(value, value) if value else None for value in node.inputs])
            values.update(zip(node.outputs, copy.outputs, strict=True))
        parts.append(values[sink])
    first = at.constant(np.array([0]))
    substitute(last, at("Slice", at("Concat", *parts, axis=0), first, at("Shape", sources[0], start=0, end=1), first))
    remove(model, *reversed(nodes))


def _frame_indices(at: Writer, source: ir.Value, pieces: int) -> list[ir.Value]:
    """Which frames each slice has: the next, as many in each, and the last one for those that there are not."""
    zero, one = at.constant(np.array(0)), at.constant(np.array(1))
    frames = at("Squeeze", at("Shape", source, start=0, end=1))
    size = at("Div", at("Add", frames, at.constant(np.array(pieces - 1))), at.constant(np.array(pieces)))
    first, last = at("Range", zero, size, one), at("Sub", frames, one)
    starts = [at("Mul", size, at.constant(np.array(piece))) for piece in range(pieces)]
    return [at("Min", at("Add", first, start), last) for start in starts]


def _take_sizes_from(model: ir.Model, sources: Sequence[ir.Value], nodes: Sequence[ir.Node]) -> None:
    """Ask the sources, not what is computed from them by `nodes`, for sizes, and scale them where levels differ."""
    for value in [output for node in nodes for output in node.outputs]:
        for user in [user for user in value.consumers() if user.op_type == "Shape"]:
            axes = slice(user.attributes["start"].as_int(), user.attributes["end"].as_int())
            same = [source for source in sources if shape_of(source)[axes] == shape_of(value)[axes]]
            if same:
                user.replace_input_with(0, same[0])
                continue
            (size,) = shape_of(value)[axes]
            known = [(source, axis, known) for source in sources for axis, known in enumerate(shape_of(source))]
            source, axis, whole = next(x for x in known if _variables(x[2]) == _variables(size))
            at = Writer(model.graph, user)
            multiple = at("Mul", at("Shape", source, start=axis, end=axis + 1), at.constant(np.array([divisor(size)])))
            substitute(user, at("Div", multiple, at.constant(np.array([divisor(whole)]))))
            remove(model, user)


def _variables(size: int | str) -> set[str]:
    return set(re.findall(r"[a-z]\w*", str(size)))


def in_slices(
    at: Writer, sources: Sequence[ir.Value], axis: int, pieces: int, compute: Callable[..., ir.Value]
) -> ir.Value:
    """`compute` on equal slices of `sources`, joined again.

    The slices get an axis of their own to be taken from: TensorRT knows its size, and so the size of a slice.
    """
    cut = [at("Reshape", source, _target(at, source, axis, [pieces, -1])) for source in sources]
    parts: list[ir.Value] = []
    for piece in range(pieces):
        index = at.constant(np.array(piece))
        if parts:
            index = _after(at, parts[-1], index)
        part = compute(*(at("Gather", whole, index, axis=axis) for whole in cut))
        parts.append(at("Unsqueeze", part, at.constant(np.array([axis]))))
    return at("Reshape", at("Concat", *parts, axis=axis), _target(at, sources[0], axis, [-1]))


def _after(at: Writer, part: ir.Value, index: ir.Value) -> ir.Value:
    """`index`, which cannot be known before `part` is.

    Where nothing says which slice comes first, TensorRT may cut them all at once and hold them together. No number is
    greater than infinity, but TensorRT does not know it.
    """
    flat = at("Reshape", part, at.constant(np.array([-1])))
    zero = at.constant(np.array(0))
    first = at("Cast", at("Gather", flat, zero, axis=0), to=ir.DataType.FLOAT)
    never = at("Greater", first, at.constant(np.array(np.inf, np.float32)))
    return at("Add", index, at("Cast", never, to=ir.DataType.INT64))


def _target(at: Writer, source: ir.Value, axis: int, sizes: list[int]) -> ir.Value:
    """What `Reshape` takes to put `sizes` in the place of `axis` of `source` and leave the other axes."""
    parts: list[int | ir.Value] = [0] * axis + list(sizes)
    for i in range(axis + 1, len(shape_of(source))):
        size = shape_of(source)[i]
        parts.append(size if isinstance(size, int) else at("Shape", source, start=i, end=i + 1))
    if all(isinstance(part, int) for part in parts):
        return at.constant(np.array(parts))
    values = [at.constant(np.array([part])) if isinstance(part, int) else part for part in parts]
    return at("Concat", *values, axis=0)


def _make_relative(model: ir.Model, reshape: ir.Node) -> None:
    """Let a reshape say no size that it can take over from its input, so that it does for a slice as for the whole.

    Where several are left, the first of pixels is left to the reshape, and the others are as they were.
    """
    if reshape.outputs[0].shape is None or present(reshape.inputs[0]).shape is None:
        return  # written here, and so already
    before, after = shape_of(present(reshape.inputs[0])), shape_of(reshape.outputs[0])
    same = [axis < len(before) and before[axis] == size for axis, size in enumerate(after)]
    target = [0 if same[axis] else size if isinstance(size, int) else -1 for axis, size in enumerate(after)]
    at = Writer(model.graph, reshape)
    relative = at.constant(np.array(target))
    if target.count(-1) > 1:
        absolute = present(reshape.inputs[1])
        left = next(axis for axis, size in enumerate(target) if size == -1 and divisor(after[axis]) > 1)
        parts = [
            at("Gather", absolute, at.constant(np.array([axis])))
            if size == -1 and axis != left
            else at.constant(np.array([size]))
            for axis, size in enumerate(target)
        ]
        relative = at("Concat", *parts, axis=0)
    reshape.replace_input_with(1, relative)
    reshape.attributes.pop("allowzero", None)
