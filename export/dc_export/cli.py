"""The command `dc-export`: checkpoint to ONNX graphs, graphs to TensorRT engines, and graphs against the reference."""

from __future__ import annotations

import io
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dc_export.faults import disk_error, missing_module, refused_by_disk
from dc_rt import log
from dc_rt.cli.terminal import complain, sentence_of
from dc_rt.errors import UserError

app = typer.Typer(
    name="dc-export",
    help="Turn a DepthCrafter checkpoint into engines.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

DEFAULT_BASE = "stabilityai/stable-video-diffusion-img2vid-xt"
DEFAULT_UNET = "tencent/DepthCrafter"
ENGINES_FOLDER = Path("engines")  # where dc-rt looks
LIBRARIES = ("TRANSFORMERS", "DIFFUSERS", "HF_HUB")

Base = Annotated[
    str,
    typer.Option(help="Stable Video Diffusion: a folder, a hub id, or random:tiny or random:full.", metavar="DIR|ID"),
]
Unet = Annotated[
    str, typer.Option(help="DepthCrafter's UNet, likewise. The hub's weights are non-commercial.", metavar="DIR|ID")
]

BaseRevision = Annotated[
    str | None, typer.Option(help="Of a base on the hub: branch, tag or commit; else main.", metavar="REV")
]
UnetRevision = Annotated[str | None, typer.Option(help="Of a UNet on the hub, likewise.", metavar="REV")]
Flavour = Annotated[
    str, typer.Option(help="tensorrt, for the GPU that is here; rtx, which needs none; auto, by the card.")
]
Workspace = Annotated[
    float | None, typer.Option(help="Most memory for what a single layer needs for itself.", metavar="GB")
]
Streaming = Annotated[bool, typer.Option("--weight-streaming", help="For dc-rt infer --cpu-offload sequential.")]
Portable = Annotated[
    bool, typer.Option("--portable", help="Engines for all cards from Ampere on, not for this one alone.")
]
ThisGpu = Annotated[
    bool, typer.Option("--this-gpu", help="Insist on engines for the GPU that is here, also with TensorRT-RTX.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show what the libraries have to say too.")]


@app.command()
def engines(
    model: Annotated[
        str, typer.Argument(help="depthcrafter, nano, random-full, random-tiny; a folder; or a UNet's hub id.")
    ] = "depthcrafter",
    profile: Annotated[str, typer.Option(help="Size profile, see engines/profiles.toml.")] = "film",
    flavour: Flavour = "auto",
    low_memory: Annotated[bool, typer.Option("--low-memory", help="Less memory, more time.")] = False,
    plain: Annotated[
        bool | None,
        typer.Option("--plain/--sliced", help="More memory, less time; as the card's memory has it unless given."),
    ] = None,
    weight_streaming: Streaming = False,
    portable: Portable = False,
    this_gpu: ThisGpu = False,
    workspace: Workspace = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the engine set; engines/MODEL-PROFILE unless given.", metavar="DIR")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call the model; its own name unless given.")] = None,
    base: Annotated[
        str | None, typer.Option(help="Stable Video Diffusion; the model's own unless given.", metavar="DIR|ID")
    ] = None,
    base_revision: BaseRevision = None,
    unet_revision: UnetRevision = None,
    force: Annotated[bool, typer.Option("--force", help="Export graphs that are up to date too.")] = False,
    verbose: Verbose = False,
) -> None:
    """Make TensorRT engines of a model: export its graphs, and build an engine of each; what is up to date is kept."""
    _set_up(verbose)  # before any of the libraries is imported
    from dc_export.models import find_origins

    origins = find_origins(model, base)
    name = name or origins.name
    if out is None:
        from depthcrafter.source import model_name

        switches = {"low-memory": low_memory, "streaming": weight_streaming, "portable": portable}
        suffix = "".join(f"-{switch}" for switch, given in switches.items() if given)
        out = ENGINES_FOLDER / f"{name or model_name(origins.unet)}-{profile}{suffix}"
    # Before minutes are spent on graphs: whether there is something to build with.
    from dc_export.build import choose_flavour

    choose_flavour(flavour, portable, this_gpu, report=lambda library: None)
    if plain is None:
        from dc_export.targets import is_plain_best
        from dc_rt.gpu import find_card

        plain = is_plain_best(find_card(), low_memory, portable)
    onnx(
        out,
        base=origins.base,
        unet=origins.unet,
        profile=profile,
        name=name,
        target="tensorrt",
        low_memory=low_memory,
        plain=plain,
        base_revision=base_revision,
        unet_revision=unet_revision,
        force=force,
        verbose=verbose,
    )
    build(
        out,
        flavour=flavour,
        profile=profile,
        workspace=workspace,
        low_memory=low_memory,
        weight_streaming=weight_streaming,
        portable=portable,
        this_gpu=this_gpu,
        verbose=verbose,
    )


@app.command()
def onnx(
    out: Annotated[Path, typer.Option(help="Folder of the engine set.", metavar="ENGINES")],
    base: Base = DEFAULT_BASE,
    unet: Unet = DEFAULT_UNET,
    precision: Annotated[
        str | None, typer.Option(help="fp32 or fp16; unless given fp32 for ONNX Runtime, fp16 for TensorRT.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Size profile, see engines/profiles.toml; the target's widest unless given.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call the model; its UNet's name unless given.")] = None,
    target: Annotated[str, typer.Option(help="What will run the graphs: onnx or tensorrt.")] = "onnx",
    low_memory: Annotated[bool, typer.Option("--low-memory", help="For TensorRT: less memory, more time.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="For TensorRT: more memory, less time.")] = False,
    base_revision: BaseRevision = None,
    unet_revision: UnetRevision = None,
    force: Annotated[bool, typer.Option("--force", help="Export graphs that are up to date too.")] = False,
    verbose: Verbose = False,
) -> None:
    """Export the four ONNX graphs and their manifest, unless they are there and up to date."""
    if unet == DEFAULT_UNET:
        console.print(f"{DEFAULT_UNET}: its licence allows academic, non-commercial use only.")
    _set_up(verbose)
    from dc_export.targets import choose_settings
    from depthcrafter.source import find_checkpoint, parts_for

    began = time.perf_counter()
    report = _reporter(began)
    # Before PyTorch is imported, which takes seconds: all that can be wrong with options, network and hub is said now.
    revisions = {"base_revision": base_revision, "unet_revision": unet_revision}
    chosen, _ = choose_settings(target, precision, profile, low_memory, plain)
    checkpoint = find_checkpoint(base, unet, parts_for(chosen), **revisions, report=report)
    from dc_export.export import export_onnx

    manifest = export_onnx(
        base,
        unet,
        out,
        precision=precision,
        profile=profile,
        name=name,
        target=target,
        low_memory=low_memory,
        plain=plain,
        base_revision=checkpoint.base.revision,
        unet_revision=checkpoint.unet.revision,
        force=force,
        report=report,
    )
    report(f"{out}: {manifest.model.name}, {manifest.precision}, profile {manifest.profile.name}{_peak_memory()}")


@app.command()
def build(
    engines: Annotated[Path, typer.Argument(help="Folder of the engine set.", metavar="ENGINES")],
    flavour: Flavour = "auto",
    profile: Annotated[
        str | None, typer.Option(help="Size profile; the one that the graphs were exported for unless given.")
    ] = None,
    workspace: Workspace = None,
    low_memory: Annotated[
        bool, typer.Option("--low-memory", help="Insist on graphs that were exported with --low-memory.")
    ] = False,
    weight_streaming: Streaming = False,
    portable: Portable = False,
    this_gpu: ThisGpu = False,
    verbose: Verbose = False,
) -> None:
    """Build TensorRT engines from the graphs, those that are missing or out of date."""
    _set_up(verbose)
    from dc_export.build import build_engines

    began = time.perf_counter()
    report = _reporter(began)
    manifest = build_engines(
        engines,
        flavour=flavour,
        profile=profile,
        workspace=workspace,
        low_memory=low_memory,
        weight_streaming=weight_streaming,
        portable=portable,
        this_gpu=this_gpu,
        report=report,
    )
    report(f"{engines}: {manifest.model.name}, all {len(manifest.graphs)} engines{_peak_memory()}")


@app.command()
def verify(
    engines: Annotated[Path, typer.Argument(help="Folder of the engine set.", metavar="ENGINES")],
    base: Base = DEFAULT_BASE,
    unet: Unet = DEFAULT_UNET,
    backend: Annotated[str, typer.Option(help="auto, onnx or tensorrt.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of the random inputs.")] = 0,
    base_revision: BaseRevision = None,
    unet_revision: UnetRevision = None,
    verbose: Verbose = False,
) -> None:
    """Run each graph and the PyTorch reference on random inputs of several sizes; exit with 1 if any differs."""
    _set_up(verbose)
    from dc_export.verify import verify_engines

    table = Table(title=f"{engines} against the float32 reference", title_justify="left", box=None)
    table.add_column("graph", no_wrap=True)
    table.add_column("frames x height x width", no_wrap=True)
    for column in ("mean error", "max error", "spread"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    report = _reporter(time.perf_counter())
    passed = True
    revisions = {"base_revision": base_revision, "unet_revision": unet_revision}
    for row in verify_engines(engines, base, unet, backend=backend, seed=seed, **revisions, report=report):
        report(f"{row.graph}, {row.size}")
        figures = (f"{row.mean_error:.2e}", f"{row.max_error:.2e}", f"{row.spread:.3g}")
        table.add_row(row.graph, row.size, *figures, "ok" if row.passed else "DIFFERS")
        passed &= row.passed
    console.print(table)
    if not passed:
        raise UserError("Graphs differ from the reference beyond rounding; export them again (dc-export onnx).")


@app.command()
def checkpoint(
    config: Annotated[str, typer.Argument(help="tiny (as bundled) or full (the real sizes, 5 GB).")],
    out: Annotated[Path, typer.Argument(help="Folder for the base; the UNet goes into its subfolder unet.")],
    seed: Annotated[int, typer.Option(help="Of the weights.")] = 0,
) -> None:
    """Write a random checkpoint in the layout of the real ones: for benchmarks, and where there is no hub."""
    _set_up(verbose=False)
    from depthcrafter import make_checkpoint

    base, unet = make_checkpoint(out, config, seed)
    console.print(f"--base {base} --unet {unet}", markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command line: what a user, the disk or the installation causes is one sentence and exit status 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for names that a terminal cannot show
    try:
        app()
    except UserError as error:
        sentence = sentence_of(error)
    except ImportError as error:
        if not (found := missing_module(error)):
            raise
        sentence = found
    except Exception as error:
        if not (refused := disk_error(error)):
            raise
        sentence = (refused.filename is None and _output_lost()) or refused_by_disk(refused)
    else:
        return
    complain(sentence)
    sys.exit(1)


def _output_lost() -> str:
    """Whether it is standard output that cannot be written, in a sentence."""
    try:
        print(flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries again at its end
        return f"Standard output cannot be written ({error.strerror}); send it elsewhere, then run this again."
    return ""


def _peak_memory() -> str:
    """Of this process, or of one that it started if that took more; for the end of a line."""
    try:
        import resource
    except ImportError:  # on Windows
        return ""
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return f"; peak memory {max(peaks) / (1 << (30 if sys.platform == 'darwin' else 20)):.1f} GiB"


def _reporter(began: float):  # type: ignore[no-untyped-def]  # a closure for print
    def report(message: str) -> None:
        console.print(f"{time.perf_counter() - began:6.1f} s  {message}", markup=False, highlight=False, soft_wrap=True)

    return report


def _set_up(verbose: bool) -> None:
    """No progress bars, hints, warnings and errors of other libraries between our lines; ours say what is wrong."""
    log.set_up(verbose)
    if verbose:
        return
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for library in LIBRARIES:
        os.environ.setdefault(f"{library}_VERBOSITY", "critical")
    warnings.simplefilter("ignore")


if __name__ == "__main__":
    main()
