"""The rules for TensorRT, each of which says how often it matched. Every one is exact."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import RewriteRule, RewriteRuleSet

from dc_export.rewrite.graph import (
    PIECES,
    Unexpected,
    Writer,
    array_of,
    before,
    nodes_of,
    pieces_of,
    pixel_axis,
    pixel_divisor,
    present,
    producer,
    remove,
    shape_of,
    substitute,
    upstream,
    user_of,
)
from dc_export.rewrite.slicing import in_slices, slice_over_frames, slice_region

# Slices of frames and of whole transformers cost layers, and so are for the levels of large latents, by what divides
# the number of their pixels: below, the tensors that wait for the way up take far more than layers do.
LARGE = 16
# Head sizes for which TensorRT-RTX has a fused attention kernel, in half precision only.
FUSED_HEAD_SIZES = (64, 80)


def is_fused(is_half: bool, head_size: int) -> bool:
    """Whether TensorRT-RTX has a kernel for an attention."""
    return is_half and head_size in FUSED_HEAD_SIZES


def decompose_attention(model: ir.Model) -> int:
    """Write out every `Attention`, or those that have no fused kernel, which are sliced by the queries if they divide.

    The scores of half precision are normalized in float32, as the fused kernels do.
    """
    matches = 0
    takes_a_window = any(len(shape_of(value)) == 5 for value in model.graph.inputs)
    for node in nodes_of(model, "Attention"):
        query, key, value = (present(x) for x in node.inputs[:3])
        dtype, head_size = query.dtype, shape_of(query)[3]
        if dtype is None or not isinstance(head_size, int):
            raise Unexpected(f"the type of {node.name} is not known")
        if is_fused(dtype == ir.DataType.FLOAT16, head_size):
            continue
        matches += 1
        at = Writer(model.graph, node)
        scale = at.constant(np.asarray(1 / np.sqrt(head_size), dtype.numpy()))
        scaled = at("Mul", query, scale)
        transposed = at("Transpose", key, perm=[0, 1, 3, 2])

        def attend(
            part: ir.Value,
            at: Writer = at,
            transposed: ir.Value = transposed,
            value: ir.Value = value,
            dtype: ir.DataType = dtype,
        ) -> ir.Value:
            scores = at("Cast", at("MatMul", part, transposed), to=ir.DataType.FLOAT)
            return at("MatMul", at("Cast", at("Softmax", scores, axis=-1), to=dtype), value)

        # An eighth of the scores of a whole window has 2^31 elements and more at 960x960.
        pieces = pieces_of(query, 2, 2 * PIECES if takes_a_window else PIECES)
        scaled.shape = query.shape
        attended = attend(scaled) if pieces == 1 else in_slices(at, [scaled], 2, pieces, attend)
        substitute(node, attended)
        remove(model, node)
    return matches


def blend_residuals(model: ir.Model) -> int:
    """Make a * x + b * (x + y), where a + b is 1, into x + b * y: how a residual block and a temporal one blend."""
    rule = RewriteRule(
        lambda op, x, y, a, b: op.Add(op.Mul(x, a), op.Mul(op.Add(x, y), b)),
        lambda op, x, y, b, **_: op.Add(x, op.Mul(y, b)),
    )
    matches: int = RewriteRuleSet([rule], commute=True).apply_to_model(model)
    return matches


def normalize_over_frames(model: ir.Model) -> int:
    """Write out the group normalizations of a window as a whole, half precision in and out, sums in float32.

    TensorRT has a kernel where the number of normalized elements is known. Here it depends on the number of frames,
    and TensorRT's own decomposition holds two float32 copies of the input. Moments of every frame, and then their
    mean, need none.
    """
    matches = 0
    for node in nodes_of(model, "GroupNormalization"):
        x, weight, bias = (present(value) for value in node.inputs)
        if len(shape_of(x)) != 5 or x.dtype != ir.DataType.FLOAT16:
            continue
        matches += 1
        groups = node.attributes["num_groups"].as_int()
        channels = shape_of(x)[1]
        at = Writer(model.graph, node)
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
        substitute(node, result)
        remove(model, node)
    return matches


def split_feed_forwards(model: ir.Model) -> int:
    """Make each GEGLU's projection two, of the values and of the gates, by the columns of its weight."""
    matches = 0
    for gelu in nodes_of(model, "Gelu"):
        split = present(gelu.inputs[0]).producer()
        if split is None or split.op_type != "Split":
            continue
        matches += 1
        add = producer(split.inputs[0])
        matmul, bias = producer(add.inputs[0]), present(add.inputs[1])
        x, weight = present(matmul.inputs[0]), present(matmul.inputs[1])
        columns, offsets = np.split(array_of(weight), 2, axis=1), np.split(array_of(bias), 2)
        at = Writer(model.graph, split)
        for output, part, offset in zip(split.outputs, columns, offsets, strict=True):
            product = at("MatMul", x, at.constant(np.ascontiguousarray(part)))
            output.replace_all_uses_with(at("Add", product, at.constant(np.ascontiguousarray(offset))))
        remove(model, split, add, matmul)
    return matches


def slice_spatial_layers(model: ir.Model) -> int:
    """Run what mixes no frames in slices of the frames: residual blocks and the spatial parts of transformers.

    A graph that mixes none at all and has convolutions, the VAE encoder, is sliced as a whole.
    """
    normalizations = nodes_of(model, "GroupNormalization")
    blocks = [name for name in model.graph.initializers if name.endswith("spatial_res_block.conv2.weight")]
    if normalizations and not blocks:
        _slice_all(model)
        return 1
    matches = 0
    for name in blocks:
        second = user_of(model, name)
        first = upstream(producer(second.inputs[0]), "Conv")
        source = present(upstream(first, "GroupNormalization").inputs[0])
        if pixel_divisor(source) >= LARGE:
            (add,) = second.outputs[0].consumers()
            slice_over_frames(model, _upsampled_from(source), add.outputs[0])
            matches += 1
    for gelu, inner in _feed_forwards(model):
        if pixel_axis(inner) == 1:
            source = present(upstream(gelu, "GroupNormalization").inputs[0])
            if pixel_divisor(source) >= LARGE:
                slice_over_frames(model, [source], _residual_sum(inner))
                matches += 1
    return matches


def _slice_all(model: ir.Model) -> None:
    (output,) = model.graph.outputs
    # From the first tensors of floats on: TensorRT lets uint8 be cast and nothing else.
    casts = [node for value in model.graph.inputs if value.dtype == ir.DataType.UINT8 for node in value.consumers()]
    floats = [value for value in model.graph.inputs if value.dtype != ir.DataType.UINT8]
    last = upstream(producer(output), "Conv")
    slice_over_frames(model, [*(node.outputs[0] for node in casts), *floats], last.outputs[0])


def slice_temporal_transformers(model: ir.Model) -> int:
    """Run the temporal part of each transformer in slices of the pixels, as it mixes the frames of a pixel only.

    From the spatial part's result to the sum with the residual, so that neither what is transposed for the temporal
    part nor what is transposed back exists as a whole.
    """
    temporal = [source for _, source in _feed_forwards(model) if pixel_axis(source) == 0]
    large = [source for source in temporal[::2] if pixel_divisor(source) >= LARGE]
    for source in large:
        spatial = _residual_sum_before(source)
        (weighted,) = [node for node in spatial.consumers() if node.op_type == "Mul"]
        (blend,) = weighted.outputs[0].consumers()
        (projection,) = blend.outputs[0].consumers()
        (biased,) = projection.outputs[0].consumers()
        residual, total = _add_before_transposing(biased.outputs[0])
        slice_region(model, [spatial, residual], total, 1, pieces_of(spatial, 1))
    return len(large)


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
    (x,) = [present(value) for value in add.inputs if value is not transpose.outputs[0]]
    at = Writer(add.graph, reshape)
    channels = at.constant(np.array([0, -1, shape_of(projected)[2]]))
    residual = at("Reshape", at("Transpose", x, perm=[0, 2, 3, 1]), channels)
    total = at("Add", projected, residual)
    for value in (residual, total):
        value.shape, value.type = projected.shape, projected.type
    reshape.replace_input_with(0, total)
    add.outputs[0].replace_all_uses_with(transpose.outputs[0], replace_graph_outputs=True)
    add.graph.remove(add, safe=True)
    return residual, total


def slice_feed_forwards(model: ir.Model) -> int:
    """Run each feed-forward that is in no slice, from its normalization to its residual sum, in slices of pixels."""
    matches = 0
    for _, source in _feed_forwards(model):
        axis = pixel_axis(source)
        if axis is not None:
            matches += 1
            slice_region(model, [source], _residual_sum(source), axis, pieces_of(source, axis))
    return matches


def _feed_forwards(model: ir.Model) -> list[tuple[ir.Node, ir.Value]]:
    """The activation and the input of each that is in no slice: what is in one was written here, without shapes."""
    gelus = nodes_of(model, "Gelu")
    sources = [present(before(gelu, "Add", "MatMul", "LayerNormalization").inputs[0]) for gelu in gelus]
    return [(gelu, source) for gelu, source in zip(gelus, sources, strict=True) if source.shape is not None]


def _residual_sum_before(source: ir.Value) -> ir.Value:
    """The spatial part's result, [T,h*w,C], of what the temporal part takes, [h*w,T,C]."""
    value = source
    while producer(value).op_type != "Add":
        value = present(producer(value).inputs[0])
    (result,) = [x for x in producer(value).inputs if x is not None and pixel_axis(x) == 1]
    return result


def _residual_sum(source: ir.Value) -> ir.Value:
    """What a residual connection around a layer that takes `source` ends in."""
    (add,) = [node for node in source.consumers() if node.op_type == "Add"]
    return add.outputs[0]


def _upsampled_from(source: ir.Value) -> list[ir.Value]:
    """What a residual block takes: the tensors before a concatenation and an upsampling, where there are such."""
    node = source.producer()
    values = [present(value) for value in node.inputs] if node and node.op_type == "Concat" else [source]
    return [_before_upsampling(value) for value in values]


def _before_upsampling(value: ir.Value) -> ir.Value:
    convolution = value.producer()
    if convolution is not None and convolution.op_type == "Conv":
        resize = present(convolution.inputs[0]).producer()
        if resize is not None and resize.op_type == "Resize":
            return present(resize.inputs[0])
    return value
