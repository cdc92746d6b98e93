"""Every option of a run, once: its name, its default, its range, and the sentence for a wrong value.

The command line, the job, the record and the fingerprint of a run, the reference and the benchmarks all take these
objects. To add an option is to add a field here, and what it does. NumPy is not imported: `dc-rt --help` does not wait.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from dc_rt.errors import UserError, option
from dc_rt.formats import COLORMAPS, EXR_PRESETS, VIDEO_CODECS
from dc_rt.outputs import FEWEST_DIGITS, STREAM, Output, all_outputs
from dc_rt.parsing import parse_name, parse_range, parse_raw_size, parse_size
from dc_rt.sampler import SAMPLERS

# The denoiser's last level has 1/8 of the latents' sides, which are 1/8 of the pixels'.
SIZE_MULTIPLE = 64

DATASET_SIZES: dict[str, tuple[int, int]] = {
    "sintel": (448, 1024),
    "scannet": (640, 832),
    "KITTI": (384, 1280),
    "bonn": (512, 640),
    "NYUv2": (448, 640),
}
"""Height and width of the paper's benchmarks, by the name of the data set."""

_ANY_SIZE = "open"
_MOST_DIGITS = 12  # of the numbers in the names of frames

UPSCALES = ("guided", "bilinear")
VALUES = ("normalised", "raw")
POLARITIES = ("preset", "near-white", "far-white")
STEREO_MODES = ("sbs", "half-sbs", "anaglyph", "rgbd", "left+right")
PIPE_FORMATS = ("yuv4mpeg", "gray16le", "float32")
PIPE_OPTIONS = ("raw_size", "raw_format", "pipe_matrix", "pipe_format")
"""Names of the options of frames on standard input and output, which are nothing to surfaces without them."""

VIEWS = ("srgb", "none")
MATRICES = ("unknown", "bt601", "bt709", "bt2020")


@dataclass(frozen=True)
class Rule:
    """What a field's value must be, and how the command line shows it.

    Attributes:
        help: what it does, in a phrase.
        flags: of the command line, the first of which messages use; the field's name unless given.
        least: the smallest value.
        above: what the value must be greater than.
        most: the largest value.
        instead: a value that stands for "no limit", whatever the range.
        choices: all values that there are.
        parse: reads text of more than a few values; raises `ValueError` with what it must be.
        metavar: how the values of `parse` are shown.
    """

    help: str
    flags: tuple[str, ...] = ()
    least: float = -math.inf
    above: float = -math.inf
    most: float = math.inf
    instead: float | None = None
    choices: tuple[str, ...] = ()
    parse: Callable[[str], object] | None = None
    metavar: str = ""

    def check(self, name: str, value: Any, default: Any) -> None:
        """Raise `UserError` unless `value` is one that the option may have."""
        instead = option(name, default)
        if self.choices:
            if value not in self.choices:
                raise UserError(f"There is no {option(name, value)}; choose one of {', '.join(self.choices)}.")
            return
        if self.parse:
            if not isinstance(value, str):
                raise UserError(f"{option(name)} must be text, not {value!r}; try {instead}.")
            try:
                self.parse(value)
            except ValueError as error:
                mend = f"try {instead}" if default else "or leave it out"
                raise UserError(f"{option(name)} must be {error}, not {value!r}; {mend}.") from None
            return
        if isinstance(value, bool) != isinstance(default, bool) or not isinstance(value, int | type(default)):
            kind = "a whole number" if type(default) is int else "a number" if type(default) is float else "yes or no"
            raise UserError(f"{option(name)} must be {kind}, not {value!r}; try {instead}.")
        if self.instead is not None and value == self.instead:
            return
        if not math.isfinite(value):
            raise UserError(f"{option(name)} must be a finite number, not {value}; try {instead}.")
        unless = "" if self.instead is None else f", or {self.instead:g} for no limit"
        for wrong, bound in (
            (value < self.least, f"at least {self.least}"),
            (value <= self.above, f"greater than {self.above}"),
            (value > self.most, f"at most {self.most}"),
        ):
            if wrong:
                raise UserError(f"{option(name)} must be {bound}{unless}, not {value}; try {instead}.")


def _option(default: Any, help: str, *flags: str, **rule: Any) -> Any:
    return field(default=default, metadata={"rule": Rule(help, flags, **rule)})


class _Checked:
    """A dataclass whose fields are checked when it is made: none with a wrong value exists."""

    def __post_init__(self) -> None:
        for name, rule, default in rules(type(self)):
            value = getattr(self, name)
            if hasattr(value, "item"):  # NumPy's numbers, which no record and no fingerprint could hold
                value = value.item()
            if type(default) is float and type(value) is int:
                value = float(value)
            rule.check(name, value, default)
            object.__setattr__(self, name, value)


# Options of one output alone.
_ONLY_OF = {
    "exr": "exr",
    "exr_type": "exr",
    "exr_compression": "exr",
    "stereo": "stereo",
    "disparity": "stereo",
    "convergence": "stereo",
    "depth_codec": "depth.mp4",
    "pipe_format": STREAM,
}


@dataclass(frozen=True)
class Sampling(_Checked):
    """How depth is sampled from the model.

    Raises:
        UserError: a value is out of its range.
    """

    steps: int = _option(5, "Denoising steps.", "--num-denoising-steps", "--num-inference-steps", least=1)
    sampler: str = _option("euler", "How the steps are taken.", choices=tuple(SAMPLERS))
    guidance_scale: float = _option(
        1.0, "Classifier-free guidance; up to 1 there is none, above it a step costs twice as much."
    )
    window_size: int = _option(110, "Frames denoised together.", least=1)
    overlap: int = _option(25, "Frames that neighbouring windows share.", least=0)
    seed: int = _option(42, "Seed of the noise.", least=0, most=2**64 - 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.overlap >= self.window_size:
            raise UserError(
                f"{option('overlap')} must be smaller than {option('window_size', self.window_size)}, not "
                f"{self.overlap}; try {option('overlap', default_overlap(self.window_size))}."
            )
        least = SAMPLERS[self.sampler].least_steps
        if self.steps < least:
            raise UserError(
                f"{option('sampler', self.sampler)} takes {option('steps')} of at least {least}, not {self.steps}: "
                "with fewer its result is as far off as that of another seed; try "
                f"{option('steps', SAMPLERS[self.sampler].good_steps)}, or {option('sampler', type(self).sampler)}."
            )

    @property
    def stride(self) -> int:
        """Frames from the start of a window to that of the next one."""
        return self.window_size - self.overlap

    @property
    def is_guided(self) -> bool:
        """Whether the denoiser is evaluated twice wherever the sampler asks for it once."""
        return self.guidance_scale > 1

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of the choice, before it runs."""
        good = SAMPLERS[self.sampler].good_steps
        if self.steps >= good:
            return ()
        return (
            f"sampler {self.sampler}: less accurate with {self.steps} steps than from {good} on (docs/samplers.md)",
        )

    @property
    def evaluations(self) -> tuple[int, ...]:
        """How often each step evaluates the denoiser, in every window: [steps]."""
        return tuple((2 if self.is_guided else 1) * each for each in SAMPLERS[self.sampler].evaluations(self.steps))


@dataclass(frozen=True)
class Source(_Checked):
    """What is taken of a video, and at which size.

    Raises:
        UserError: a value is out of its range.
    """

    process_length: int = _option(-1, "Frames to process at most; -1 for all.", least=0, instead=-1)
    target_fps: float = _option(
        -1.0, "Take every n-th frame, for about this frame rate; -1 for all.", above=0, instead=-1
    )
    max_res: int = _option(1024, "Largest height or width to process at, in pixels.", least=SIZE_MULTIPLE)
    dataset: str = _option(_ANY_SIZE, "Size preset; open follows the video.", choices=(_ANY_SIZE, *DATASET_SIZES))
    shots: str = _option(
        "none",
        "Where shots begin, each of which is estimated as if it were alone: auto finds the cuts, FILE (CSV of frame "
        "numbers, or EDL) names them.",
        parse=str,
        metavar="none|auto|FILE",
    )
    fps: float = _option(
        -1.0,
        "Frame rate of images or of raw frames on standard input, which carry none; -1 for 24.",
        least=0.01,
        most=1e5,
        instead=-1,
    )
    view: str = _option(
        "srgb", "How linear EXR frames are shown to the model: srgb, or none for values as they are.", choices=VIEWS
    )
    exposure: float = _option(0.0, "Stops by which linear EXR frames are made brighter.", least=-100, most=100)
    raw_size: str = _option(
        "", "Size of raw frames on standard input; yuv4mpeg states its own.", parse=parse_raw_size, metavar="WxH"
    )
    raw_format: str = _option(
        "rgb24", "Pixel format of raw frames on standard input, as FFmpeg calls it.", parse=str, metavar="FORMAT"
    )
    pipe_matrix: str = _option(
        "unknown", "Colour matrix of YUV frames on standard input, which do not say it.", choices=MATRICES
    )


@dataclass(frozen=True)
class Outputs(_Checked):
    """What is written, and how.

    Attributes:
        names: of the rows of `dc_rt.outputs`, in the table's order.

    Raises:
        UserError: there is no such output, or none is named, or a value is out of its range.
    """

    names: tuple[str, ...] = ()
    size: str = _option(
        "model",
        "Size of the results: as the model gives it, the source's, or another.",
        parse=parse_size,
        metavar="model|source|WxH",
    )
    upscale: str = _option(
        "guided",
        f"How depth is brought to {option('size')}: guided by the source's picture, or bilinear.",
        choices=UPSCALES,
    )
    range: str = _option(
        "clip",
        "Which depth becomes 0 and 1: the smallest and largest of the clip, those of each shot, or LOW and HIGH.",
        parse=parse_range,
        metavar="clip|shot|LOW,HIGH",
    )
    values: str = _option(
        "normalised", f"Depth from 0 to 1, as {option('range')} says, or raw, as the model gives it.", choices=VALUES
    )
    polarity: str = _option(
        "preset",
        f"Whether large is near or far; preset: as {option('exr')} says in EXR files, elsewhere near-white.",
        choices=POLARITIES,
    )
    gamma: float = _option(1.0, "Values are raised to 1/gamma: above 1, dark ones get lighter.", least=0.01, most=100)
    colormap: str = _option("inferno", "Colours of NAME_vis.mp4 and of the side-by-side video.", choices=COLORMAPS)
    dither: bool = _option(False, "Dither 8-bit videos of depth, so that slopes show no bands.")
    depth_codec: str = _option(
        "h264",
        f"Codec of NAME_depth: {'; '.join(f'{name} is {codec.words}' for name, codec in VIDEO_CODECS.items())}.",
        choices=tuple(VIDEO_CODECS),
    )
    exr: str = _option(
        "z",
        f"Whose conventions EXR files follow: {'; '.join(f'{name}: {it.words}' for name, it in EXR_PRESETS.items())}.",
        choices=tuple(EXR_PRESETS),
    )
    exr_type: str = _option("float", "Type of the numbers in EXR files.", choices=("float", "half"))
    exr_compression: str = _option(
        "zip", "Compression of EXR files; all three are lossless.", choices=("zip", "zips", "piz")
    )
    start_number: int = _option(0, "Number of the first file of frames.", least=0, most=10**_MOST_DIGITS - 1)
    padding: int = _option(
        0, "Digits of the numbers of files of frames, from 4 on; 0 for as many as sort.", least=0, most=_MOST_DIGITS
    )
    audio: bool = _option(False, "Copy the source's sound into the videos.")
    stereo: str = _option("sbs", "How the two views are laid out, in the output stereo.", choices=STEREO_MODES)
    disparity: float = _option(
        2.0,
        "How far nearest and farthest are shifted against each other in the output stereo, in percent of the width.",
        above=0,
        most=20,
    )
    convergence: float = _option(
        0.5, "Depth that lies on the screen in the output stereo: 0 is the farthest, 1 the nearest.", least=0, most=1
    )
    result_name: str = _option(
        "",
        "What the results are called, instead of after the video; those of standard input are called stdin.",
        "--name",
        parse=parse_name,
        metavar="NAME",
    )
    pipe_format: str = _option("yuv4mpeg", "Format of depth on standard output, the output -.", choices=PIPE_FORMATS)
    keep: str = _option(
        "none",
        "raw: also keep the model's own depth in NAME.raw.zarr.zip, from which dc-rt deliver writes other results.",
        choices=("none", "raw"),
    )
    overwrite: bool = _option(False, "Replace files that dc-rt did not write.")

    def __post_init__(self) -> None:
        super().__post_init__()
        table = all_outputs()
        wanted = (self.names,) if isinstance(self.names, str) else tuple(self.names) or default_outputs()
        for name in wanted:
            if name not in table:
                raise UserError(f"There is no {option('outputs', name)}; choose of {', '.join(table)}.")
        object.__setattr__(self, "names", tuple(name for name in table if name in wanted))
        if STREAM in self.names and self.values == "raw" and self.pipe_format != "float32":
            raise UserError(
                f"{option('pipe_format', self.pipe_format)} holds depth from 0 to 1, and {option('values', 'raw')} is "
                f"of any size; take {option('pipe_format', 'float32')}."
            )
        if 0 < self.padding < FEWEST_DIGITS:  # a name with fewer would not be known as ours
            raise UserError(
                f"{option('padding')} must be 0 or at least {FEWEST_DIGITS}, not {self.padding}; try "
                f"{option('padding', FEWEST_DIGITS)}."
            )

    @property
    def rows(self) -> tuple[Output, ...]:
        """Those of the table, as the options ask for them of a video without sound; what is kept is one of them."""
        return self.rows_with(None)

    def rows_with(self, sound: str | None) -> tuple[Output, ...]:
        """The same of a video whose sound has this codec, by FFmpeg's name: the container of a copy follows from it."""
        table = all_outputs()
        names = [name for name in table if name in self.names or name == self.keep]
        return tuple(table[name].chosen(vars(self), sound) for name in names)

    @property
    def copies_sound(self) -> bool:
        """Whether an output takes the source's sound, so that its codec matters."""
        return any(all_outputs()[name].copies_sound(vars(self)) for name in self.names)

    def digits(self, num_frames: int) -> int:
        """How many digits the numbers of that many files have at least, so that their names sort as they do."""
        return self.padding or max(FEWEST_DIGITS, len(str(self.start_number + num_frames - 1)))

    @property
    def manner(self) -> dict[str, Any]:
        """All that decides what is in the files, by name, whichever of them are written."""
        others = ("keep", "overwrite", "result_name", "pipe_format")
        return {name: getattr(self, name) for name, _, _ in rules(Outputs) if name not in others}

    @property
    def fixed_range(self) -> tuple[float, float] | None:
        """The range that is given in numbers; None where it is found."""
        return parse_range(self.range)

    @property
    def without_use(self) -> tuple[str, ...]:
        """Options that were chosen and change nothing, each of an output that is not written, in a sentence each."""
        given = ((name, getattr(self, name), default) for name, _, default in rules(Outputs) if name in _ONLY_OF)
        return tuple(
            f"{option(name, value)} changes nothing: the output {_ONLY_OF[name]} is not written"
            for name, value, default in given
            if value != default and _ONLY_OF[name] not in self.names
        )

    @property
    def is_live(self) -> bool:
        """Whether depth goes to a stream while the model runs: what it is does not depend on frames still to come."""
        return STREAM in self.names and (self.fixed_range is not None or self.values == "raw")

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of the choice, before it runs."""
        if STREAM not in self.names or self.is_live:
            return ()
        return (
            "depth goes to standard output once the range of the whole clip is known, at the end; "
            f"{option('range', 'LOW,HIGH')} has it go there while the model runs",
        )


@dataclass(frozen=True)
class Options:
    """All options of a run together, as surfaces take and hand them on that are not a command line."""

    sampling: Sampling = field(default_factory=Sampling)
    source: Source = field(default_factory=Source)
    outputs: Outputs = field(default_factory=Outputs)

    @classmethod
    def by_name(cls, values: Mapping[str, Any], base: Self | None = None) -> Self:
        """Those of `base`, or the defaults, with others in their place.

        Args:
            values: by their names in Python or as flags without dashes before them, as JSON or as text has them: "5"
                is 5, "true" and "yes" are True. `outputs` are names in a list or separated by commas, to which a flag
                of an output, such as `save_npz`, adds its own.

        Raises:
            UserError: there is no such option, or it has no such value.
        """
        base = base or cls()
        chosen: dict[type, dict[str, Any]] = {Sampling: {}, Source: {}, Outputs: {}}
        names: list[str] | None = None
        added = []
        known_by = _known_by()
        flagged = {_without_dashes(row.flag): name for name, row in all_outputs().items() if row.flag}
        for given, value in values.items():
            name = _without_dashes(str(given))
            if name == "outputs":
                names = _names_of(value)
            elif name in flagged:
                is_wanted = _as_typed(name, value, False)
                Rule("").check(name, is_wanted, False)
                added += [flagged[name]] if is_wanted else []
            elif name in known_by:
                known, kind, default = known_by[name]
                chosen[kind][known] = _as_typed(known, value, default)
            else:
                raise UserError(f"There is no option {str(given)!r}; docs/options.md has them all.")
        if names is not None or added:
            chosen[Outputs]["names"] = (*(base.outputs.names if names is None else names), *added)
        return cls(
            dataclasses.replace(base.sampling, **chosen[Sampling]),
            dataclasses.replace(base.source, **chosen[Source]),
            dataclasses.replace(base.outputs, **chosen[Outputs]),
        )

    def as_dict(self) -> dict[str, Any]:
        """All of them by name, as JSON can hold them and `by_name` takes them."""
        return record(self.sampling, self.source, self.outputs)


def _known_by() -> dict[str, tuple[str, type, Any]]:
    """Every option's name, class and default, by all names that it goes by."""
    return {
        _without_dashes(called): (name, kind, default)
        for kind in (Sampling, Source, Outputs)
        for name, rule, default in rules(kind)
        for called in (name, *rule.flags)
    }


def _without_dashes(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_")


def _names_of(value: Any) -> list[str]:
    """Names of outputs from a list, or from text as the command line has it."""
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()] or list(default_outputs())
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return list(value) or list(default_outputs())
    raise UserError(f"{option('outputs')} must be names, in a list or separated by commas, not {value!r}.")


_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


def _as_typed(name: str, value: Any, default: Any) -> Any:
    """The value, of the option's type if it is text that means one; the option's rule refuses anything else."""
    if not isinstance(value, str) or isinstance(default, str):
        return value
    text = value.strip()
    if isinstance(default, bool):
        if text.casefold() not in _TRUE + _FALSE:
            raise UserError(f"{option(name)} must be yes or no, not {value!r}.")
        return text.casefold() in _TRUE
    try:
        return int(text) if isinstance(default, int) else float(text)
    except ValueError:
        return value


def default_overlap(window_size: int) -> int:
    """The overlap that the default one is for a window of this size."""
    return window_size * Sampling.overlap // Sampling.window_size


def default_outputs() -> tuple[str, ...]:
    """Names of the outputs that are written unless others are asked for."""
    return tuple(row.name for row in all_outputs().values() if row.is_default)


def rules(options: type) -> Iterator[tuple[str, Rule, Any]]:
    """Name, rule and default of every option of a class of them."""
    for each in dataclasses.fields(options):
        if "rule" in each.metadata:
            yield each.name, each.metadata["rule"], each.default


def flags_of(name: str) -> Sequence[str]:
    """The flags of an option by its name in Python, the one to use in messages first."""
    for options in (Sampling, Source, Outputs):
        for known, rule, _ in rules(options):
            if known == name and rule.flags:
                return rule.flags
    return (f"--{name.replace('_', '-')}",)


def as_flag(name: str, typed: str, value: str) -> str:
    """How a command line words an option: see `dc_rt.errors.worded`."""
    return f"{flags_of(name)[0]} {typed}".rstrip()


def record(*options: Sampling | Source | Outputs) -> dict[str, Any]:
    """All of these that decides the results, by name, as JSON can hold it."""
    values: dict[str, Any] = {}
    for each in options:
        values |= vars(each)
        if isinstance(each, Outputs):
            values["outputs"] = list(values.pop("names"))
    return values
