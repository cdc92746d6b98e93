"""The commands."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dc_rt.attention import ATTENTIONS
from dc_rt.batch import REPORT
from dc_rt.cli.command import Command
from dc_rt.cli.options import (
    Values,
    options_from,
    outputs_from,
    processes_of,
    with_options,
    with_options_of,
    with_parameters_of,
)
from dc_rt.errors import UserError, option, worded
from dc_rt.lease import DEFAULT_SECONDS
from dc_rt.options import PIPE_OPTIONS, Outputs, Sampling, Source, as_flag
from dc_rt.outputs import RAW_SUFFIX, STREAM
from dc_rt.torch_steps import TORCH_STEPS, split_names

if TYPE_CHECKING:
    from dc_rt.models import ModelOptions

app = typer.Typer(
    name="dc-rt",
    help="Consistent depth for long videos: DepthCrafter on ONNX Runtime or TensorRT.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_ACCESS, _LIMITS = "Who may use it", "How much is taken"

Workers = Annotated[int | None, typer.Option(min=1, help="Processes that run a video each; 1, or one for each device.")]
Devices = Annotated[str, typer.Option(metavar="NUMBER,...", help="GPUs, as CUDA numbers them: a process on each.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show what the libraries have to say too.")]


@app.command(cls=Command)
@with_options(Source, Sampling, Outputs)
def infer(
    # That a video or folder cannot be read is not for the parser to say, which would end the batch.
    videos: Annotated[
        list[Path],
        typer.Argument(
            metavar="VIDEO...",
            readable=False,
            help="Video files; folders of images, or sequences such as shot.%04d.exr; - for standard input.",
        ),
    ],
    engines: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Engine set; else $DC_RT_ENGINES, else the newest in ./engines that runs the video, else the bundled.",
        ),
    ] = None,
    backend: Annotated[str, typer.Option(metavar="auto|onnx|tensorrt|torch", help="What runs the engines.")] = "auto",
    provider: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:KEY=VALUE,...]", help="ONNX Runtime's execution provider; `dc-rt doctor` lists them."
        ),
    ] = None,
    cpu_offload: Annotated[
        str,
        typer.Option(metavar="none|model|sequential", help="Save memory: one engine at a time, or streamed weights."),
    ] = "none",
    attention: Annotated[
        str | None,
        typer.Option(metavar="|".join(ATTENTIONS), help="How PyTorch computes attention, with --backend torch."),
    ] = None,
    torch_steps: Annotated[
        str,
        typer.Option(metavar="NAME,...", help=f"Speed PyTorch up, with --backend torch: {', '.join(TORCH_STEPS)}."),
    ] = "",
    save_folder: Annotated[Path, typer.Option(readable=False, help="Where the results go.")] = Path("./demo_output"),
    fit: Annotated[
        bool, typer.Option("--fit", help="Choose engine set, offload and size for the GPU memory that is free.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what a run would use, need and take, and write nothing.")
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away what an unfinished run did.")] = False,
    events: Annotated[
        str,
        typer.Option(metavar="none|jsonl", help="What happens, as lines of JSON on standard output, for programs."),
    ] = "none",
    verbose: Verbose = False,
    *,
    values: Values,
) -> None:
    """Estimate the depth of videos: NAME_depth.mp4, NAME_vis.mp4, NAME_input.mp4 and NAME.json of each."""
    from dc_rt.log import set_up

    set_up(verbose)
    from dc_rt.cli.event_lines import following
    from dc_rt.cli.infer import Ways, infer_all, preview_all
    from dc_rt.cli.streams import take_standard_output_for_depth

    with following(events, videos) as lines:
        sampling, source, outputs = options_from(values)
        if lines and (dry_run or STREAM in outputs.names):
            other = option("dry_run", True) if dry_run else option("outputs", STREAM)
            raise UserError(f"{option('events', events)} has standard output for itself; leave {other} out.")
        stream = take_standard_output_for_depth() if STREAM in outputs.names and not dry_run else None
        models = _model_options(engines, backend, cpu_offload, provider, attention, torch_steps, fit)
        ways = Ways(models, save_folder, restart, stream, lines)
        (preview_all if dry_run else infer_all)(videos, ways, sampling, source, outputs)


def _model_options(
    engines: Path | None,
    backend: str,
    cpu_offload: str,
    provider: str | None,
    attention: str | None,
    torch_steps: str,
    fit: bool,
) -> ModelOptions:
    """Which model runs, of what was typed."""
    from dc_rt.models import ModelOptions

    named = None if engines is None else str(engines)
    return ModelOptions(named, backend, cpu_offload, provider, attention, split_names(torch_steps), fit)


@app.command(cls=Command)
@with_options_of(infer, "videos", "events", *PIPE_OPTIONS)
def batch(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            readable=False,
            help='Folders; patterns in quotes, such as "in/**/*.mov"; lists (.csv, .jsonl); videos, as of dc-rt infer.',
        ),
    ],
    workers: Workers = None,
    devices: Devices = "",
    cluster: Annotated[
        str | None,
        typer.Option(metavar="auto|HOST:PORT", help="Run on the nodes of a Ray cluster; auto finds a running one."),
    ] = None,
    retry: Annotated[
        int, typer.Option(min=0, help="Tries more, of a video whose process died, or whose disk refused.")
    ] = 1,
    lease_seconds: Annotated[
        float, typer.Option(help="Others on the same folder take a video over from here after so long a silence.")
    ] = DEFAULT_SECONDS,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", readable=False, help=f"The report; else {REPORT} among the results."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be run, what is done, and what cannot be; write nothing.")
    ] = False,
    **given: Any,
) -> None:
    """Estimate the depth of many videos: those in folders, with results in the same tree; what is done is skipped."""
    from dc_rt.log import set_up

    set_up(given["verbose"])
    from dc_rt.cli.batch import Batch, Sharing, preview_batch, run_batch
    from dc_rt.options import Options

    models = _model_options(**{name: given[name] for name in signature(_model_options).parameters})
    wanted = Batch(inputs, given["save_folder"], Options(*options_from(given)), models, given["restart"])
    sharing = Sharing.of(workers, devices, retry, lease_seconds, cluster)
    if dry_run:
        preview_batch(wanted, sharing)
    else:
        run_batch(wanted, sharing, report)


Raws = Annotated[
    list[Path], typer.Argument(metavar="RAW...", readable=False, help="Files that runs with --keep raw left.")
]
VideoNow = Annotated[
    Path | None,
    typer.Option("--source", metavar="FILE", readable=False, help="Where the video is now, if it was moved."),
]


@app.command(cls=Command)
@with_options(Outputs)
def deliver(
    raws: Raws,
    source: VideoNow = None,
    save_folder: Annotated[Path, typer.Option(readable=False, help="Where the results go.")] = Path("./demo_output"),
    verbose: Verbose = False,
    *,
    values: Values,
) -> None:
    """Write results from depth that --keep raw left, without a model: the files of a run with these options."""
    from dc_rt.log import set_up

    set_up(verbose)
    from dc_rt.cli.deliver import deliver_all
    from dc_rt.cli.streams import take_standard_output_for_depth

    outputs = outputs_from(values)
    stream = take_standard_output_for_depth() if STREAM in outputs.names else None
    deliver_all(raws, outputs, save_folder, source, stream)


@app.command(cls=Command)
@with_options_of(infer, outputs="stereo", size="source")
def stereo(**given: Any) -> None:
    """Make left and right views of videos by their depth, for headsets, 3D screens and red-cyan glasses.

    It is dc-rt infer with --outputs stereo and --size source, unless told otherwise. Given a NAME.raw.zarr.zip, which
    --keep raw left, it is dc-rt deliver: no model runs.
    """
    raws = [path for path in given["videos"] if path.name.endswith(RAW_SUFFIX)]
    if not raws:
        infer(**given)
    elif len(raws) < len(given["videos"]):
        raise UserError("Videos and raw files are not taken together; give them in commands of their own.")
    else:
        taken = signature(deliver).parameters
        for name, parameter in signature(stereo).parameters.items():
            if name not in (*taken, "videos") and given[name] != parameter.default:
                raise UserError(
                    f"{option(name)} is of a run of the model, and {raws[0]} was made by one; leave it out."
                )
        deliver(raws=raws, **{name: given[name] for name in taken if name in given})


@app.command(cls=Command)
@with_options(Outputs, only=("size", "upscale", "start_number", "padding", "overwrite"))
def calibrate(
    raw: Annotated[Path, typer.Argument(metavar="RAW", readable=False, help="A file that a run with --keep raw left.")],
    points: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV", readable=False, help="Known depth: frame, x and y (pixels of the source), z in metres."
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="DEPTH",
            readable=False,
            help="Known depth: NPZ, a folder of EXR or 16-bit PNG files, or one of them.",
        ),
    ] = None,
    unit: Annotated[
        float | None,
        typer.Option(
            metavar="METRES", help="Metres that 1 is in the reference; 1 unless given, and 0.001 in PNG files."
        ),
    ] = None,
    reference_frame: Annotated[
        int, typer.Option(help="With one picture as the reference: the frame of the results that it is of.")
    ] = 0,
    focal: Annotated[
        float | None, typer.Option(metavar="PIXELS", help="The camera's focal length, in pixels of the source's width.")
    ] = None,
    source: VideoNow = None,
    save_folder: Annotated[Path, typer.Option(readable=False, help="Where the results go.")] = Path("./demo_output"),
    verbose: Verbose = False,
    *,
    values: Values,
) -> None:
    """Write depth that --keep raw left in metres, fitted to known depth: NAME_metric/frame_0000.exr, .npz and .json."""
    from dc_rt.log import set_up

    set_up(verbose)
    from dc_rt.cli.deliver import calibrate_one
    from dc_rt.job import Truth

    truth = Truth(points, reference, unit, reference_frame)
    calibrate_one(raw, truth, outputs_from(values), save_folder, focal, source)


@app.command(cls=Command)
def compare(
    a: Annotated[
        Path, typer.Argument(metavar="A", readable=False, help="NPZ, a folder of EXR or PNG files, or a grey video.")
    ],
    b: Annotated[Path, typer.Argument(metavar="B", readable=False, help="Another one, of the same size and length.")],
    save_folder: Annotated[Path, typer.Option(readable=False, help="Where the video goes.")] = Path("./demo_output"),
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Put A and B beside their difference in the video.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a video that is there.")] = False,
) -> None:
    """Compare two results: print how far apart they are, and write A_vs_B.mp4, their difference in colours."""
    from dc_rt.cli.compare import compare_results

    compare_results(a, b, save_folder, side_by_side, overwrite)


MaxUpload = Annotated[
    float, typer.Option(metavar="GB", help="Largest video that is taken, in GB.", rich_help_panel=_LIMITS)
]
MaxFrames = Annotated[int, typer.Option(help="Most frames of a job that are estimated.", rich_help_panel=_LIMITS)]
MaxSteps = Annotated[int, typer.Option(help="Most denoising steps that a job may ask for.", rich_help_panel=_LIMITS)]
MaxPixels = Annotated[
    int, typer.Option(help="Most pixels of a picture, of videos and of results.", rich_help_panel=_LIMITS)
]
MaxQueue = Annotated[int, typer.Option(help="Most jobs that wait.", rich_help_panel=_LIMITS)]
MinFree = Annotated[
    float, typer.Option(metavar="GB", help="What is left free on the disk, in GB.", rich_help_panel=_LIMITS)
]


@app.command(cls=Command)
@with_parameters_of(infer, "engines", "backend", "provider", "cpu_offload", "attention", "torch_steps", "fit")
def serve(
    folder: Annotated[
        Path, typer.Option(metavar="DIR", readable=False, help="Where jobs are kept, with their videos and results.")
    ] = Path("./dc-rt-jobs"),
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's own asks for a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any that is free.")] = 8000,
    root: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            readable=False,
            help="Folder whose videos may be named by their path; repeatable.",
            rich_help_panel=_ACCESS,
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            readable=False,
            help="Token that whoever asks must send, else that in $DC_RT_TOKEN.",
            rich_help_panel=_ACCESS,
        ),
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Let whoever reaches the service use it.", rich_help_panel=_ACCESS)
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Name that the service is reached by, behind a proxy say; repeatable.",
            rich_help_panel=_ACCESS,
        ),
    ] = None,
    workers: Workers = None,
    devices: Devices = "",
    max_upload: MaxUpload = 4.0,
    max_frames: MaxFrames = 20_000,
    max_steps: MaxSteps = 50,
    max_pixels: MaxPixels = 4096 * 2304,
    max_queue: MaxQueue = 100,
    min_free: MinFree = 1.0,
    keep_days: Annotated[
        float,
        typer.Option(
            metavar="DAYS", help="Remove jobs so long after they ended; 0 for never.", rich_help_panel=_LIMITS
        ),
    ] = 0.0,
    verbose: Verbose = False,
    *,
    shared: Values,
) -> None:
    """Run jobs that are asked for over HTTP: send a video, watch, fetch the results; with a page for browsers."""
    from dc_rt.log import set_up

    set_up(verbose)
    from dc_rt.cli.serve import Asked, serve_all
    from dc_rt.serve.settings import GB, Limits

    limits = Limits(
        max_upload * GB,
        max_frames,
        max_steps,
        max_pixels,
        max_queue,
        min_free * GB,
        keep_days=keep_days,
    )
    processes = processes_of(workers, devices)
    asked = Asked(folder, host, port, root or [], token_file, no_token, allow_host or [], processes, limits)
    serve_all(asked, _model_options(**shared))


_SPACE, _FAR = "The space", "Other machines"


@app.command(cls=Command)
def view(
    result: Annotated[
        Path,
        typer.Argument(
            metavar="RESULT", readable=False, help="NAME.json, which a run left beside its results; or one of these."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", readable=False, help="The page; else NAME_view.html beside the record."),
    ] = None,
    ply: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", readable=False, help="Write a point cloud a frame, binary PLY, in its place."),
    ] = None,
    glb: Annotated[
        Path | None,
        typer.Option(metavar="FILE", readable=False, help="Write the first frame as a mesh, binary glTF."),
    ] = None,
    viser: Annotated[
        bool,
        typer.Option("--viser", help="Show it to browsers on other machines, by viser.", rich_help_panel=_FAR),
    ] = False,
    host: Annotated[str, typer.Option(help="Address to listen on.", rich_help_panel=_FAR)] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.", rich_help_panel=_FAR)] = 8080,
    first: Annotated[int, typer.Option(min=0, help="First frame to take, counted from 0.")] = 0,
    last: Annotated[int | None, typer.Option(min=0, help="Last frame to take.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Take every so-manyth frame.")] = 1,
    max_size: Annotated[
        int,
        typer.Option(
            metavar="PIXELS", min=1, max=4096, help="Longest side of the page's frames; larger ones are thinned out."
        ),
    ] = 1024,
    depth_bits: Annotated[
        int, typer.Option(metavar="8...16", min=8, max=16, help="Bits of the page's depth: fewer make it smaller.")
    ] = 16,
    focal: Annotated[
        float | None,
        typer.Option(help="Focal length in widths of the picture; 1 unless known.", rich_help_panel=_SPACE),
    ] = None,
    near: Annotated[
        float | None, typer.Option(help="Distance of the nearest; 1 unless known.", rich_help_panel=_SPACE)
    ] = None,
    far: Annotated[
        float | None, typer.Option(help="Distance of the farthest; 10 unless known.", rich_help_panel=_SPACE)
    ] = None,
) -> None:
    """Look at a result in space: one HTML file with video, depth and point clouds; PLY and glTF files; a server."""
    from dc_rt.cli.view import Frames, Wanted, view_result

    wanted = Wanted(out, ply, glb, viser, host, port, max_size, depth_bits)
    view_result(result, wanted, Frames(first, last, every), focal, near, far)


@app.command("app", cls=Command)
@with_parameters_of(infer, "engines", "backend", "provider", "cpu_offload", "attention", "torch_steps", "fit")
def app_page(
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", readable=False, help="Where it works, and where results are kept; else the user's cache."
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave finished results in the folder when the app ends.")
    ] = False,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open the page in a browser.")] = False,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's own asks for a password.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any that is free.")] = 7860,
    password_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            readable=False,
            help="Password that the page asks for, else that in $DC_RT_PASSWORD.",
            rich_help_panel=_ACCESS,
        ),
    ] = None,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="Let whoever reaches the app use it.", rich_help_panel=_ACCESS)
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Name that the app is reached by, behind a proxy say; repeatable.",
            rich_help_panel=_ACCESS,
        ),
    ] = None,
    max_upload: MaxUpload = 4.0,
    max_frames: MaxFrames = 20_000,
    max_steps: MaxSteps = 50,
    max_pixels: MaxPixels = 4096 * 2304,
    max_queue: MaxQueue = 100,
    min_free: MinFree = 1.0,
    keep_hours: Annotated[
        float,
        typer.Option(
            metavar="HOURS",
            help="Remove videos and results so long after they ended; 0 for the end of the app.",
            rich_help_panel=_LIMITS,
        ),
    ] = 24.0,
    verbose: Verbose = False,
    *,
    shared: Values,
) -> None:
    """Open a page in the browser: choose a video, watch it run, look at its depth, download the results."""
    from dc_rt.log import set_up

    set_up(verbose)
    from dc_rt.cli.app_page import Asked, run_app
    from dc_rt.serve.settings import GB, Limits

    limits = Limits(
        max_upload * GB, max_frames, max_steps, max_pixels, max_queue, min_free * GB, keep_days=keep_hours / 24
    )
    asked = Asked(folder, keep, host, port, no_browser, password_file, no_password, allow_host or [], limits)
    run_app(asked, _model_options(**shared))


@app.command()
def doctor() -> None:
    """Print what this machine can run, and what to do for more."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from dc_rt.doctor import examine

    table = Table(box=None, pad_edge=False)
    for column in ("", "what", "found", "to do"):
        table.add_column(column, overflow="fold")
    for finding in examine():
        mark = "[green]ok" if finding.ok else "[yellow]--"
        table.add_row(mark, *(escape(worded(text, as_flag)) for text in (finding.what, finding.found, finding.advice)))
    Console().print(table)
