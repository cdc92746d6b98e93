"""Exported graphs, rewritten so that TensorRT builds them and needs little memory. Every rewriting is exact.

TensorRT holds whole tensors: where a layer mixes only some of the axes, the rest can be taken in slices, so that what
lies between the layer's input and its output exists for one slice at a time. Slices need a size that TensorRT knows, or
it takes each to be as large as the whole. The pixels (their number is a multiple of 8) are cut in equal parts; the
frames, whose number need not divide, in parts as large as the profile lets an eighth of them be.

All of it happens after the export: slices written in PyTorch triple the time that tracing takes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from itertools import count

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import NameFixPass

PIECES = 8
# Slices of frames and of whole transformers cost layers, and so are for the levels of large latents, by what divides
# the number of their pixels: below, the tensors that wait for the way up take far more than layers do.
LARGE = 16
# Head sizes for which TensorRT-RTX has a fused attention kernel, in half precision only.
FUSED_HEAD_SIZES = (64, 80)


def prepare_for_tensorrt(model: ir.Model, low_memory: bool = False) -> None:
    """Rewrite a graph as exported, with its symbolic shapes, for TensorRT.

    Args:
        model: changed in place.
        low_memory: slice over frames too, which costs time: in the graph more copies, at the build more layers.
    """
    decompose_attention(model)
    blend_residuals(model)
    normalize_over_frames(model)
    split_feed_forwards(model)
    if low_memory:
        slice_spatial_layers(model)
    slice_temporal_transformers(model)
    slice_feed_forwards(model)
    NameFixPass()(model)


def decompose_attention(model: ir.Model) -> None:
    """Write out every `Attention`, or those that have no fused kernel, which are sliced by the queries if they divide.

    The scores of half precision are normalized in float32, as the fused kernels do.
    """
    for node in _nodes(model, "Attention"):
        query, key, value = (_present(x) for x in node.inputs[:3])
        dtype, head_size = query.dtype, _shape(query)[3]
        assert dtype is not None
        assert isinstance(head_size, int)
        if dtype == ir.DataType.FLOAT16 and head_size in FUSED_HEAD_SIZES:
            continue
        at = _Writer(model.graph, node)
        scale = at.constant(np.asarray(1 / np.sqrt(head_size), dtype.numpy()))
        scaled = at("Mul", query, scale)
        transposed = at("Transpose", key, perm=[0, 1, 3, 2])

        def attend(
            part: ir.Value,
            at: _Writer = at,
            transposed: ir.Value = transposed,
            value: ir.Value = value,
            dtype: ir.DataType = dtype,
        ) -> ir.Value:
            scores = at("Cast", at("MatMul", part, transposed), to=ir.DataType.FLOAT)
            return at("MatMul", at("Cast", at("Softmax", scores, axis=-1), to=dtype), value)

        pieces = _pieces(query, 2)
        scaled.shape = query.shape
        attended = attend(scaled) if pieces == 1 else _in_slices(at, [scaled], 2, pieces, attend)
        _substitute(node, attended)
        _remove(model, node)


def blend_residuals(model: ir.Model) -> None:
    """Make a * x + (1 - a) * (x + y) into x + (1 - a) * y: how a spatial residual block and a temporal one blend."""
    for blend in _nodes(model, "Add"):
        scaled = [_present(value).producer() for value in blend.inputs]
        if any(node is None or node.op_type != "Mul" for node in scaled):
            continue
        (x, _), (total, weight) = ([_present(value) for value in node.inputs] for node in scaled if node)
        add = total.producer()
        if add is None or add.op_type != "Add" or x not in add.inputs:
            continue
        (y,) = [_present(value) for value in add.inputs if value is not x]
        at = _Writer(model.graph, blend)
        _substitute(blend, at("Add", x, at("Mul", y, weight)))
        _remove(model, blend, *(node for node in scaled if node), add)


def normalize_over_frames(model: ir.Model) -> None:
    """Write out the group normalizations of a window as a whole, half precision in and out, sums in float32.

    TensorRT has a kernel where the number of normalized elements is known. Here it depends on the number of frames,
    and TensorRT's own decomposition holds two float32 copies of the input. Moments of every frame, and then their
    mean, need none.
    """
    for node in _nodes(model, "GroupNormalization"):
        x, weight, bias = (_present(value) for value in node.inputs)
        if len(_shape(x)) != 5 or x.dtype != ir.DataType.FLOAT16:
            continue
        groups = node.attributes["num_groups"].as_int()
        channels = _shape(x)[1]
        at = _Writer(model.graph, node)
        frames = at("Transpose", x, perm=[0, 2, 1, 3, 4])  # [1,T,C,h,w]
        grouped = at("Reshape", frames, at.constant(np.array([0, 0, groups, -1])))
        full = at("Cast", grouped, to=ir.DataType.FLOAT)
        mean, square = (
            at("ReduceMean", at("ReduceMean", moment, at.constant(np.array([3]))), at.constant(np.array([1])))
            for moment in (full, at("Mul", full, full))
        )  # [1,1,groups,1]
        variance = at("Sub", square, at("Mul", mean, mean))
        epsilon = at.constant(np.array(node.attributes["epsilon"].as_float(), np.float32))
        deviation = at("Sqrt", at("Add", variance, epsilon))
        per_group = at.constant(np.array([1, 1, groups, -1]))
        scale = at("Div", at("Reshape", at("Cast", weight, to=ir.DataType.FLOAT), per_group), deviation)
        shift = at("Sub", at("Reshape", at("Cast", bias, to=ir.DataType.FLOAT), per_group), at("Mul", mean, scale))
        per_channel = at.constant(np.array([1, channels, 1, 1, 1]))
        scaled = at("Mul", at("Cast", x, to=ir.DataType.FLOAT), at("Reshape", scale, per_channel))
        result = at("Cast", at("Add", scaled, at("Reshape", shift, per_channel)), to=x.dtype)
        _substitute(node, result)
        _remove(model, node)


def split_feed_forwards(model: ir.Model) -> None:
    """Make each GEGLU's projection two, of the values and of the gates, by the columns of its weight."""
    for gelu in _nodes(model, "Gelu"):
        split = _present(gelu.inputs[0]).producer()
        if split is None or split.op_type != "Split":
            continue
        add = _producer(split.inputs[0])
        matmul, bias = _producer(add.inputs[0]), _present(add.inputs[1])
        x, weight = _present(matmul.inputs[0]), _present(matmul.inputs[1])
        columns, offsets = np.split(_array(weight), 2, axis=1), np.split(_array(bias), 2)
        at = _Writer(model.graph, split)
        for output, part, offset in zip(split.outputs, columns, offsets, strict=True):
            product = at("MatMul", x, at.constant(np.ascontiguousarray(part)))
            output.replace_all_uses_with(at("Add", product, at.constant(np.ascontiguousarray(offset))))
        _remove(model, split, add, matmul)


def slice_spatial_layers(model: ir.Model) -> None:
    """Run what mixes no frames in slices of the frames: residual blocks and the spatial parts of transformers.

    A graph that mixes none at all and has convolutions, the VAE encoder, is sliced as a whole.
    """
    normalizations = _nodes(model, "GroupNormalization")
    blocks = [name for name in model.graph.initializers if name.endswith("spatial_res_block.conv2.weight")]
    if normalizations and not blocks:
        _slice_all(model)
    for name in blocks:
        second = _user(model, name)
        first = _upstream(_producer(second.inputs[0]), "Conv")
        source = _present(_upstream(first, "GroupNormalization").inputs[0])
        if _pixel_divisor(source) >= LARGE:
            (add,) = second.outputs[0].consumers()
            slice_over_frames(model, _upsampled_from(source), add.outputs[0])
    for gelu, inner in _feed_forwards(model):
        if _pixel_axis(inner) == 1:
            source = _present(_upstream(gelu, "GroupNormalization").inputs[0])
            if _pixel_divisor(source) >= LARGE:
                slice_over_frames(model, [source], _residual_sum(inner))


def _slice_all(model: ir.Model) -> None:
    (output,) = model.graph.outputs
    # From the first tensors of floats on: TensorRT lets uint8 be cast and nothing else.
    casts = [node for value in model.graph.inputs if value.dtype == ir.DataType.UINT8 for node in value.consumers()]
    floats = [value for value in model.graph.inputs if value.dtype != ir.DataType.UINT8]
    last = _upstream(_producer(output), "Conv")
    slice_over_frames(model, [*(node.outputs[0] for node in casts), *floats], last.outputs[0])


def slice_temporal_transformers(model: ir.Model) -> None:
    """Run the temporal part of each transformer in slices of the pixels, as it mixes the frames of a pixel only.

    From the spatial part's result to the sum with the residual, so that neither what is transposed for the temporal
    part nor what is transposed back exists as a whole.
    """
    temporal = [source for _, source in _feed_forwards(model) if _pixel_axis(source) == 0]
    for source in temporal[::2]:
        if _pixel_divisor(source) < LARGE:
            continue
        spatial = _residual_sum_before(source)
        (weighted,) = [node for node in spatial.consumers() if node.op_type == "Mul"]
        (blend,) = weighted.outputs[0].consumers()
        (projection,) = blend.outputs[0].consumers()
        (biased,) = projection.outputs[0].consumers()
        residual, total = _add_before_transposing(biased.outputs[0])
        slice_region(model, [spatial, residual], total, 1, _pieces(spatial, 1))


def _add_before_transposing(projected: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Let a transformer's residual connection be added as [T,h*w,C], before the result becomes [T,C,h,w] again.

    The sum is then what the last slice ends with. An addition alone TensorRT may do again for each user, and the result
    of a transformer has two, one of them far away: both summands would wait for it.

    Args:
        projected: [T,h*w,C], what the last projection gives.

    Returns:
        The residual and the sum, [T,h*w,C].
    """
    (reshape,) = projected.consumers()
    (transpose,) = reshape.outputs[0].consumers()
    (add,) = transpose.outputs[0].consumers()
    (x,) = [_present(value) for value in add.inputs if value is not transpose.outputs[0]]
    at = _Writer(add.graph, reshape)
    channels = at.constant(np.array([0, -1, _shape(projected)[2]]))
    residual = at("Reshape", at("Transpose", x, perm=[0, 2, 3, 1]), channels)
    total = at("Add", projected, residual)
    for value in (residual, total):
        value.shape, value.type = projected.shape, projected.type
    reshape.replace_input_with(0, total)
    add.outputs[0].replace_all_uses_with(transpose.outputs[0], replace_graph_outputs=True)
    add.graph.remove(add, safe=True)
    return residual, total


def slice_feed_forwards(model: ir.Model) -> None:
    """Run each feed-forward that is in no slice, from its normalization to its residual sum, in slices of pixels."""
    for _, source in _feed_forwards(model):
        axis = _pixel_axis(source)
        if axis is not None:
            slice_region(model, [source], _residual_sum(source), axis, _pieces(source, axis))


def _feed_forwards(model: ir.Model) -> list[tuple[ir.Node, ir.Value]]:
    """The activation and the input of each that is in no slice: what is in one was written here, without shapes."""
    gelus = _nodes(model, "Gelu")
    sources = [_present(_upstream(gelu, "LayerNormalization").inputs[0]) for gelu in gelus]
    return [(gelu, source) for gelu, source in zip(gelus, sources, strict=True) if source.shape is not None]


def slice_region(model: ir.Model, sources: Sequence[ir.Value], sink: ir.Value, axis: int, pieces: int) -> None:
    """Compute `sink` from `sources` in equal `pieces` of `axis`, which all have and no node between them mixes.

    What comes in from beside `sources` is shared by all pieces, so it must not have the axis.
    """
    nodes = _nodes_between(sources, sink)
    for node in nodes:
        if node.op_type == "Reshape":
            _make_relative(model, node)
    last = _producer(sink)
    at = _Writer(model.graph, last)

    def compute(*parts: ir.Value) -> ir.Value:
        values = dict(zip(sources, parts, strict=True))
        for node in nodes:
            copy = at.copy(node, [values.get(value, value) if value else None for value in node.inputs])
            values.update(zip(node.outputs, copy.outputs, strict=True))
        return values[sink]

    result = _in_slices(at, sources, axis, pieces, compute)
    _substitute(last, result)
    _remove(model, *reversed(nodes))


def slice_over_frames(model: ir.Model, sources: Sequence[ir.Value], sink: ir.Value) -> None:
    """Compute `sink` from `sources` in slices of the frames, which all have first and no node between them mixes.

    Slices are of one size, an eighth of the frames rounded up, so that TensorRT knows the largest from the profile.
    Past the last frame there is that one again, and the results are cut off.
    """
    nodes = _nodes_between(sources, sink)
    for node in nodes:
        if node.op_type == "Reshape":
            _make_relative(model, node)
    _take_sizes_from(model, sources, nodes)
    frames = _shape(sources[0])[0]
    last = _producer(sink)
    at = _Writer(model.graph, last)
    inside = {output for node in nodes for output in node.outputs}
    inputs = dict.fromkeys(value for node in nodes for value in node.inputs if value is not None)
    cut = [value for value in inputs if value not in inside and value.shape and _shape(value)[0] == frames]
    parts: list[ir.Value] = []
    for index in _frame_indices(at, sources[0], PIECES):
        index = _after(at, parts[-1], index) if parts else index
        values = {value: at("Gather", value, index, axis=0) for value in cut}
        for node in nodes:
            copy = at.copy(node, [values.get(value, value) if value else None for value in node.inputs])
            values.update(zip(node.outputs, copy.outputs, strict=True))
        parts.append(values[sink])
    first = at.constant(np.array([0]))
    _substitute(last, at("Slice", at("Concat", *parts, axis=0), first, at("Shape", sources[0], start=0, end=1), first))
    _remove(model, *reversed(nodes))


def _frame_indices(at: _Writer, source: ir.Value, pieces: int) -> list[ir.Value]:
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
            same = [source for source in sources if _shape(source)[axes] == _shape(value)[axes]]
            if same:
                user.replace_input_with(0, same[0])
                continue
            (size,) = _shape(value)[axes]
            known = [(source, axis, known) for source in sources for axis, known in enumerate(_shape(source))]
            source, axis, whole = next(x for x in known if _variables(x[2]) == _variables(size))
            at = _Writer(model.graph, user)
            multiple = at("Mul", at("Shape", source, start=axis, end=axis + 1), at.constant(np.array([_divisor(size)])))
            _substitute(user, at("Div", multiple, at.constant(np.array([_divisor(whole)]))))
            _remove(model, user)


def _variables(size: int | str) -> set[str]:
    return set(re.findall(r"[a-z]\w*", str(size)))


class _Writer:
    """Writes nodes into a graph, before one of its nodes."""

    def __init__(self, graph: ir.Graph, before: ir.Node) -> None:
        self.graph = graph
        self.before = before

    def __call__(self, op_type: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
        node = ir.node(op_type, list(inputs), attributes)
        self.graph.insert_before(self.before, node)
        return node.outputs[0]

    def copy(self, node: ir.Node, inputs: list[ir.Value | None]) -> ir.Node:
        """The same operation on other inputs."""
        copy = ir.Node(node.domain, node.op_type, inputs, list(node.attributes.values()), num_outputs=len(node.outputs))
        self.graph.insert_before(self.before, copy)
        return copy

    def constant(self, array: NDArray[np.generic]) -> ir.Value:
        """An initializer, small or large; equal integers are shared."""
        return _constant(self.graph, array)


def _constant(graph: ir.Graph, array: NDArray[np.generic]) -> ir.Value:
    if array.dtype == np.int64 and array.ndim <= 1:
        name = f"{'scalar' if array.ndim == 0 else 'list'}_{'_'.join(str(number) for number in array.reshape(-1))}"
        if name in graph.initializers:
            return graph.initializers[name]
    else:
        name = next(name for i in count(len(graph.initializers)) if (name := f"part_{i}") not in graph.initializers)
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
    graph.register_initializer(value)
    return value


def _in_slices(
    at: _Writer, sources: Sequence[ir.Value], axis: int, pieces: int, compute: Callable[..., ir.Value]
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


def _after(at: _Writer, part: ir.Value, index: ir.Value) -> ir.Value:
    """`index`, which cannot be known before `part` is.

    Where nothing says which slice comes first, TensorRT may cut them all at once and hold them together. No number is
    greater than infinity, but TensorRT does not know it.
    """
    flat = at("Reshape", part, at.constant(np.array([-1])))
    zero = at.constant(np.array(0))
    first = at("Cast", at("Gather", flat, zero, axis=0), to=ir.DataType.FLOAT)
    never = at("Greater", first, at.constant(np.array(np.inf, np.float32)))
    return at("Add", index, at("Cast", never, to=ir.DataType.INT64))


def _target(at: _Writer, source: ir.Value, axis: int, sizes: list[int]) -> ir.Value:
    """What `Reshape` takes to put `sizes` in the place of `axis` of `source` and leave the other axes."""
    parts: list[int | ir.Value] = [0] * axis + list(sizes)
    for i in range(axis + 1, len(_shape(source))):
        size = _shape(source)[i]
        parts.append(size if isinstance(size, int) else at("Shape", source, start=i, end=i + 1))
    if all(isinstance(part, int) for part in parts):
        return at.constant(np.array(parts))
    values = [at.constant(np.array([part])) if isinstance(part, int) else part for part in parts]
    return at("Concat", *values, axis=0)


def _make_relative(model: ir.Model, reshape: ir.Node) -> None:
    """Let a reshape say no size that it can take over from its input, so that it does for a slice as for the whole.

    Where several are left, the first of pixels is left to the reshape, and the others are as they were.
    """
    if reshape.outputs[0].shape is None or _present(reshape.inputs[0]).shape is None:
        return  # written here, and so already
    before, after = _shape(_present(reshape.inputs[0])), _shape(reshape.outputs[0])
    same = [axis < len(before) and before[axis] == size for axis, size in enumerate(after)]
    target = [0 if same[axis] else size if isinstance(size, int) else -1 for axis, size in enumerate(after)]
    at = _Writer(model.graph, reshape)
    relative = at.constant(np.array(target))
    if target.count(-1) > 1:
        absolute = _present(reshape.inputs[1])
        left = next(axis for axis, size in enumerate(target) if size == -1 and _divisor(after[axis]) > 1)
        parts = [
            at("Gather", absolute, at.constant(np.array([axis])))
            if size == -1 and axis != left
            else at.constant(np.array([size]))
            for axis, size in enumerate(target)
        ]
        relative = at("Concat", *parts, axis=0)
    reshape.replace_input_with(1, relative)
    reshape.attributes.pop("allowzero", None)


def _pixel_axis(value: ir.Value) -> int | None:
    """The axis that can be cut in more than one piece; None where there is none."""
    axes = [axis for axis, size in enumerate(_shape(value)) if not isinstance(size, int) and _divisor(size) > 1]
    return axes[0] if axes else None


def _pieces(value: ir.Value, axis: int) -> int:
    return math.gcd(PIECES, _divisor(_shape(value)[axis]))


def _divisor(size: int | str) -> int:
    """A number that divides a size whatever the variables in it: 64 of "64*h*w", 1 of "T"."""
    if isinstance(size, int):
        return size
    factor = re.fullmatch(r"(\d+)(?:\*\w+)+", size)
    return int(factor[1]) if factor else 1


def _shape(value: ir.Value) -> list[int | str]:
    if value.shape is None:
        raise ValueError(f"the shape of {value.name} is not known")
    return [size if isinstance(size, int) else str(size.value) for size in value.shape]


def _nodes(model: ir.Model, op_type: str) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type == op_type]


def _nodes_between(sources: Sequence[ir.Value], sink: ir.Value) -> list[ir.Node]:
    """The nodes on the ways from `sources` to `sink`, each after those that it needs.

    A `Shape` starts no way: what follows from it is about sizes.
    """
    reaches: dict[ir.Value, bool] = dict.fromkeys(sources, True)
    ordered: list[ir.Node] = []

    def visit(value: ir.Value) -> bool:
        if value not in reaches:
            node = value.producer()
            found = False
            if node is not None and node.op_type != "Shape":
                for x in node.inputs:
                    found |= x is not None and visit(x)
            for output in node.outputs if node is not None else (value,):
                reaches[output] = found
            if found and node is not None:
                ordered.append(node)
        return reaches[value]

    visit(sink)
    return ordered


def _upstream(node: ir.Node, op_type: str) -> ir.Node:
    """The nearest node of that kind before `node`."""
    level = [node]
    while level:
        for found in level:
            if found.op_type == op_type:
                return found
        level = [producer for found in level for x in found.inputs if x is not None and (producer := x.producer())]
    raise ValueError(f"there is no {op_type} before {node.name}")


def _residual_sum_before(source: ir.Value) -> ir.Value:
    """The spatial part's result, [T,h*w,C], of what the temporal part takes, [h*w,T,C]."""
    value = source
    while _producer(value).op_type != "Add":
        value = _present(_producer(value).inputs[0])
    (result,) = [x for x in _producer(value).inputs if x is not None and _pixel_axis(x) == 1]
    return result


def _residual_sum(source: ir.Value) -> ir.Value:
    """What a residual connection around a layer that takes `source` ends in."""
    (add,) = [node for node in source.consumers() if node.op_type == "Add"]
    return add.outputs[0]


def _substitute(node: ir.Node, result: ir.Value) -> None:
    """Let the users of a node's only output use `result`."""
    (output,) = node.outputs
    result.shape, result.type = output.shape, output.type
    output.replace_all_uses_with(result, replace_graph_outputs=True)


def _remove(model: ir.Model, *nodes: ir.Node) -> None:
    """Remove nodes, users first, that nothing else uses, and initializers that they alone used."""
    for node in nodes:
        inputs = [value for value in node.inputs if value is not None]
        model.graph.remove(node, safe=True)
        for value in inputs:
            if value.is_initializer() and not value.uses():
                model.graph.initializers.pop(str(value.name), None)


def _producer(value: ir.Value | None) -> ir.Node:
    node = _present(value).producer()
    assert node is not None
    return node


def _present(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value


def _array(value: ir.Value) -> NDArray[np.generic]:
    assert value.const_value is not None
    array: NDArray[np.generic] = value.const_value.numpy()
    return array


def _upsampled_from(source: ir.Value) -> list[ir.Value]:
    """What a residual block takes: the tensors before a concatenation and an upsampling, where there are such."""
    node = source.producer()
    values = [_present(value) for value in node.inputs] if node and node.op_type == "Concat" else [source]
    return [_before_upsampling(value) for value in values]


def _before_upsampling(value: ir.Value) -> ir.Value:
    convolution = value.producer()
    if convolution is not None and convolution.op_type == "Conv":
        resize = _present(convolution.inputs[0]).producer()
        if resize is not None and resize.op_type == "Resize":
            return _present(resize.inputs[0])
    return value


def _pixel_divisor(value: ir.Value) -> int:
    return math.prod(_divisor(size) for size in _shape(value) if not isinstance(size, int))


def _user(model: ir.Model, initializer: str) -> ir.Node:
    (node,) = model.graph.initializers[initializer].consumers()
    return node
