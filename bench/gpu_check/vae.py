"""The VAE's encoder and decoder with random weights, by the frames that they are given at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from bench.gpu_check.models import Sizes
from bench.gpu_check.rows import Row
from bench.gpu_check.timing import Times, Work, free, peak_gb, rows_of


def measure(sizes: Sizes) -> Iterator[Row]:
    """The encoder in float32, TF32 and half precision, the decoder in half precision; each in two layouts.

    In float16 the encoder as it is overflows with real weights: its time is that of one which is scaled.
    """
    for chunk in sizes.chunks:
        yield from encoder(sizes, chunk)
        free()
        yield from decoder(sizes, chunk)
        free()


def encoder(sizes: Sizes, chunk: int) -> Iterator[Row]:
    """The rows of the encoder at one number of frames."""
    import torch

    from bench.gpu_check.networks import half, normal, random_vae, to_channels_last

    def prepare(dtype: torch.dtype, tf32: bool, layout: torch.memory_format) -> Work:
        vae = random_vae(sizes.config, dtype)
        del vae.decoder
        network = vae.encoder
        if layout == torch.channels_last:
            to_channels_last(network)
        frames = normal(chunk, 3, sizes.height, sizes.width, dtype=dtype).to(memory_format=layout)

        def work() -> None:
            # Taken at every run: the ways take turns.
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
            with torch.inference_mode():
                network(frames)

        return work

    plain, last = torch.contiguous_format, torch.channels_last
    ways: dict[str, Callable[[], Work]] = {
        "float32": partial(prepare, torch.float32, False, plain),
        "TF32": partial(prepare, torch.float32, True, plain),
        "TF32, channels_last": partial(prepare, torch.float32, True, last),
        "half precision": partial(prepare, half(), True, plain),
        "half precision, channels_last": partial(prepare, half(), True, last),
    }
    yield from _rows(sizes, ways, "VAE encoder", chunk)


def decoder(sizes: Sizes, chunk: int) -> Iterator[Row]:
    """The rows of the decoder at one number of frames."""
    import torch

    from bench.gpu_check.networks import half, normal, random_vae, to_channels_last

    vae = random_vae(sizes.config, half())
    del vae.encoder

    def prepare(layout: torch.memory_format) -> Work:
        network = vae.decoder
        latents = normal(chunk, 4, sizes.height // 8, sizes.width // 8).to(memory_format=layout)
        image_only = torch.zeros((1, chunk), device=latents.device, dtype=half())

        def work() -> None:
            with torch.inference_mode():
                network(latents, num_frames=chunk, image_only_indicator=image_only)

        return work

    # Not in turns: both are of the same weights.
    yield from _rows(sizes, {"half precision": partial(prepare, torch.contiguous_format)}, "VAE decoder", chunk)
    to_channels_last(vae.decoder)
    ways = {"half precision, channels_last": partial(prepare, torch.channels_last)}
    yield from _rows(sizes, ways, "VAE decoder", chunk)


def _rows(sizes: Sizes, ways: Mapping[str, Callable[[], Work]], what: str, chunk: int) -> Iterator[Row]:
    def shown(times: Times) -> str:
        return f"{times.median:.4g} ms, {times.median / chunk:.3g} ms/frame"

    peak_gb()  # what was before is not this one's
    memory = peak_gb if len(ways) == 1 else lambda: ""  # of several in turns it would be that of all
    yield from rows_of(ways, sizes.seconds, f"{what}, chunk {chunk}", shown, lambda _: memory())
