"""The best that the machine does on the plainest work: copying, products of matrices, attention and convolutions.

At the sizes that the UNet has at level 0, where it spends most of its time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from bench.gpu_check.models import Sizes
from bench.gpu_check.rows import Row
from bench.gpu_check.timing import LeftOut, Times, Work, check_float8, device, free, rows_of

CHANNELS = 320  # at level 0


def measure(sizes: Sizes) -> Iterator[Row]:
    """All of it, a row each."""
    yield from copies(sizes)
    yield from products(sizes)
    for sequences, tokens in sizes.heads:
        free()
        yield from attentions(sizes, sequences, tokens)
    free()
    yield from convolutions(sizes)


def copies(sizes: Sizes) -> Iterator[Row]:
    """GB/s of a copy within the device's memory, read and written."""
    import torch

    def prepare() -> Work:
        source = torch.ones(sizes.copied, dtype=torch.uint8, device=device())
        target = torch.empty_like(source)
        return lambda: target.copy_(source)

    def shown(times: Times) -> str:
        return f"{2 * sizes.copied / times.median / 1e6:.0f} GB/s"

    yield from rows_of({"": prepare}, sizes.seconds, "copy", shown, f"{sizes.copied / 1e6:.0f} MB, read and written")


def products(sizes: Sizes) -> Iterator[Row]:
    """TFLOP/s of a product of two square matrices, by precision."""
    import torch

    size = sizes.product
    matmul = torch.backends.cuda.matmul

    def matrices(dtype: Any) -> tuple[Any, Any]:
        """Both; the second as the fastest kernels want it, a column after the other."""
        a, b = (torch.randn(size, size, device=device()) for _ in range(2))
        return a.to(dtype), b.to(dtype).t()

    def plain(dtype: Any, setting: str = "", value: bool = False) -> Work:
        if setting and not hasattr(matmul, setting):
            raise LeftOut(f"this PyTorch has no {setting}")
        a, b = matrices(dtype)

        def work() -> None:
            if setting:
                before = getattr(matmul, setting)
                setattr(matmul, setting, value)
            _ = a @ b
            if setting:
                setattr(matmul, setting, before)

        return work

    def float8() -> Work:
        check_float8()
        a, b = matrices(torch.float8_e4m3fn)
        one = torch.ones((), device=device())
        return lambda: torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=torch.float16)

    ways: dict[str, Callable[[], Work]] = {
        "fp16": partial(plain, torch.float16),
        "fp16, accumulated in fp16": partial(plain, torch.float16, "allow_fp16_accumulation", True),
        "bf16": partial(plain, torch.bfloat16),
        "tf32": partial(plain, torch.float32, "allow_tf32", True),
        "fp32": partial(plain, torch.float32, "allow_tf32", False),
        "fp8": float8,
    }

    def shown(times: Times) -> str:
        return f"{2 * size**3 / times.median / 1e9:.3g} TFLOP/s"

    yield from rows_of(ways, sizes.seconds, "matrix product", shown, f"{size} x {size}")


def attentions(sizes: Sizes, sequences: int, tokens: int) -> Iterator[Row]:
    """TFLOP/s of attention by each of PyTorch's kernels, and by xformers."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    shape = (sequences, 1, tokens, sizes.head_size)
    dtype = torch.float16 if device() == "cuda" else torch.float32

    def inputs() -> tuple[Any, Any, Any]:
        q, k, v = (torch.randn(shape, device=device(), dtype=dtype) for _ in range(3))
        return q, k, v

    def of_pytorch(backend: Any) -> Work:
        q, k, v = inputs()

        def work() -> None:
            with sdpa_kernel(backend):
                scaled_dot_product_attention(q, k, v)

        return work

    def of_xformers() -> Work:
        if device() == "cpu":
            raise LeftOut("xformers needs a GPU")
        from xformers.ops import memory_efficient_attention

        q, k, v = (x.transpose(1, 2) for x in inputs())  # it has heads after tokens
        return lambda: memory_efficient_attention(q, k, v)

    ways: dict[str, Callable[[], Work]] = {}
    for name, backend in SDPBackend.__members__.items():
        # Written out, spatial attention would take tens of gigabytes.
        written_out = name == "MATH" and tokens > 1024
        if name not in ("ERROR", "OVERRIDEABLE") and not written_out:
            ways[name.lower()] = partial(of_pytorch, backend)
    ways["xformers"] = of_xformers
    flops = 4 * sequences * tokens**2 * sizes.head_size

    def shown(times: Times) -> str:
        return f"{times.median:.3g} ms, {flops / times.median / 1e9:.3g} TFLOP/s"

    title = f"attention, {tokens} x {sizes.head_size}"
    yield from rows_of(ways, sizes.seconds, title, shown, f"{sequences} of them")


def convolutions(sizes: Sizes) -> Iterator[Row]:
    """Milliseconds of the temporal convolution as a 3-D and as a 2-D one over [T, h*w], and how far they differ."""
    import torch
    from torch.nn.functional import conv2d, conv3d

    frames, h, w = sizes.windows[0], sizes.height // 8, sizes.width // 8
    dtype = torch.float16 if device() == "cuda" else torch.float32
    generator = torch.Generator(device()).manual_seed(0)
    x = torch.randn((1, CHANNELS, frames, h, w), device=device(), dtype=dtype, generator=generator)
    weight = torch.randn((CHANNELS, CHANNELS, 3, 1, 1), device=device(), dtype=dtype, generator=generator) / 30

    def in_3d(layout: Any) -> Any:
        inputs = x.to(memory_format=layout), weight.to(memory_format=layout)
        return lambda: conv3d(*inputs, padding=(1, 0, 0))

    def in_2d(layout: Any) -> Any:
        inputs = x.flatten(3).to(memory_format=layout), weight.flatten(3).to(memory_format=layout)
        return lambda: conv2d(*inputs, padding=(1, 0))

    ways = {
        "3-D": partial(in_3d, torch.contiguous_format),
        "3-D, channels_last": partial(in_3d, torch.channels_last_3d),
        "2-D": partial(in_2d, torch.contiguous_format),
        "2-D, channels_last": partial(in_2d, torch.channels_last),
    }
    difference = (in_3d(torch.contiguous_format)().flatten(3) - in_2d(torch.contiguous_format)()).abs().max()
    flops = 2 * 3 * CHANNELS**2 * frames * h * w

    def shown(times: Times) -> str:
        return f"{times.median:.3g} ms, {flops / times.median / 1e9:.3g} TFLOP/s"

    note = f"{CHANNELS} channels, {frames} frames of {w}x{h}; 2-D from 3-D by at most {difference.item():.1e}"
    with torch.inference_mode():
        yield from rows_of(ways, sizes.seconds, "temporal convolution", shown, note)
