"""What users of the original's `run.py` type, and what to type here: one table, for errors and for the documentation.

The original takes its options through Python Fire: with dashes or underscores, after one dash or two, switches also as
`--save_npz True` and `--nosave_npz`, and several videos as one word with commas. What is none of this is left to the
parser of the command line. Nothing is imported that is not Python's own: `make docs` runs anywhere.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_SWITCHED = {"True": True, "False": False}


@dataclass(frozen=True)
class Row:
    """An option of the original.

    Attributes:
        default: there, as it is typed; "" where it must be given.
        instead: what to do here where no option has this name, `{value}` standing for what was given; else "".
        example: such a value, for the documentation.
        differs: what the option of this name does differently here, for the documentation.
        values: what is called otherwise here, by what it is called there.
    """

    default: str
    instead: str = ""
    example: str = ""
    differs: str = ""
    values: Mapping[str, str] = field(default_factory=dict)

    def told(self, value: str) -> str:
        """What to do here, of an option that was given this value."""
        return self.instead.format(value=value or self.example)


ORIGINAL: dict[str, Row] = {
    "video_path": Row(
        "",
        "name videos without an option, one after the other: `dc-rt infer {value}`",
        "a.mp4 b.mp4",
    ),
    "save_folder": Row("./demo_output"),
    "unet_path": Row(
        "tencent/DepthCrafter",
        "make engines of it once, `dc-export engines {value} --out engines/mine`, and run these with "
        "`--engines engines/mine`",
        "DIR_OR_ID",
    ),
    "pre_train_path": Row(
        "stabilityai/stable-video-diffusion-img2vid-xt",
        "make engines with it once, `dc-export engines --base {value} --out engines/mine`, and run these with "
        "`--engines engines/mine`",
        "DIR_OR_ID",
    ),
    "process_length": Row("-1"),
    "cpu_offload": Row(
        "model",
        differs="the default is `none`, which is `None` there; `model` keeps one engine in memory at a time, as there; "
        "`sequential` takes engines that stream their weights (`make engines STREAMING=1`), or PyTorch on a GPU",
        values={"None": "none"},
    ),
    "target_fps": Row(
        "-1",
        differs="results keep the clip's duration, so that they may have another rate than asked; a clip of a lower "
        "rate keeps all its frames",
    ),
    "seed": Row("42", differs="the same seed gives other noise, which does not depend on the clip's length"),
    "num_inference_steps": Row("5", differs="also called `--num-denoising-steps`, as in the original's app"),
    "guidance_scale": Row("1.0"),
    "window_size": Row("110"),
    "overlap": Row("25"),
    "max_res": Row("1024", differs="at least 64"),
    "dataset": Row("open", values={"kitti": "KITTI", "nyu": "NYUv2"}),
    "save_npz": Row("False", differs="a switch: it takes no value"),
    "save_exr": Row("False", differs="a switch; needs nothing else to be installed"),
    "track_time": Row("False", "leave it out, as NAME.json always has the seconds of each stage"),
}
"""By name, in the order of the original's `--help`."""


def mistake(words: Sequence[str], takes_value: Mapping[str, bool]) -> str:
    """The first of these words that the original would take and this command does not, and what to type; else "".

    Args:
        words: the command's arguments.
        takes_value: of each flag that the command has, whether a value follows it.
    """
    at = 0
    while at < len(words) and words[at] != "--":
        name, is_joined, value = words[at].partition("=")
        if not is_joined:
            value = words[at + 1] if at + 1 < len(words) else ""
        if not name.startswith("-"):
            sentence = _of_a_list(words[at])
        elif name not in takes_value:
            sentence = _of_an_option(name, value, takes_value)
        elif takes_value[name]:
            sentence, at = _of_a_value(name, value), at if is_joined else at + 1
        else:
            sentence = _of_a_switch(name, name, value) if value in _SWITCHED and not _exists(value) else ""
        if sentence:
            return sentence
        at += 1
    return ""


def _of_a_list(word: str) -> str:
    """Of several videos in one word."""
    videos = word.split(",")
    is_list = (
        len(videos) > 1 and all(videos) and (any(map(_exists, videos)) or all(Path(each).suffix for each in videos))
    )
    if not is_list or _exists(word):
        return ""
    return f"There is no file {word}; {ORIGINAL['video_path'].told(shlex.join(videos))}."


def _of_an_option(typed: str, value: str, takes_value: Mapping[str, bool]) -> str:
    """Of one that this command does not have as it is typed."""
    name = typed.lstrip("-").replace("-", "_")
    flag = f"--{name.replace('_', '-')}"
    value = "" if value.startswith("--") else value
    if flag in takes_value and len(name) > 1:  # those of one letter are the parser's, bundled or not
        if not takes_value[flag]:
            return _of_a_switch(typed, flag, value)
        return f"There is no option {typed}; type `{f'{flag} {shlex.quote(value)}' if value else flag}`."
    if name in ORIGINAL and ORIGINAL[name].instead:
        given = shlex.join(value.split(",") if name == "video_path" else [value]) if value else ""
        return f"There is no option {typed}; {ORIGINAL[name].told(given)}."
    if ORIGINAL.get(name.removeprefix("no"), Row("")).default == "False":
        return f"There is no option {typed}; leave it out, as that is the default."
    return ""


def _of_a_value(flag: str, value: str) -> str:
    """Of one that is called otherwise here."""
    row = ORIGINAL.get(flag.lstrip("-").replace("-", "_"))
    return f"There is no {flag} {value}; type `{flag} {row.values[value]}`." if row and value in row.values else ""


def _of_a_switch(typed: str, flag: str, value: str) -> str:
    """Of one that is off unless it is there, given in another way or with a value."""
    if value not in _SWITCHED:
        return f"There is no option {typed}; type `{flag}`."
    fix = f"type `{flag}` alone" if _SWITCHED[value] else f"leave `{flag}` out"
    return f"A switch such as {typed} takes no value here, and {value} is one; {fix}."


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # no file could have such a name
        return False
