"""The tables of options, of outputs and of the original's options in `docs/`, made from the code.

PYTHONPATH=runtime python tools/docs_tables.py            # rewrites them between their markers: `make docs`
PYTHONPATH=runtime python tools/docs_tables.py --check    # exits with 1 where it would change something
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from dc_rt.cli.original import ORIGINAL
from dc_rt.errors import worded
from dc_rt.formats import EXR_PRESETS, VIDEO_CODECS, container_for
from dc_rt.gpu import Card
from dc_rt.library import NoLibrary, choose_library
from dc_rt.options import Outputs, Rule, Sampling, Source, as_flag, flags_of, rules
from dc_rt.outputs import all_outputs

DOCS = Path(__file__).parents[1] / "docs"


def tables() -> dict[tuple[str, str], str]:
    """Every table in Markdown, by its page and its name there."""
    made = {("options.md", options.__name__): options_table(options) for options in (Sampling, Source, Outputs)}
    return made | {
        ("outputs.md", "outputs"): outputs_table(),
        ("formats.md", "codecs"): codecs_table(),
        ("formats.md", "sound"): sound_table(),
        ("formats.md", "presets"): presets_table(),
        ("engines.md", "libraries"): libraries_table(),
        ("from-the-original.md", "run.py"): original_table(),
    }


def options_table(options: type) -> str:
    """A line an option."""
    lines = (
        (
            f"`{name}`",
            " ".join(f"`{flag}`" for flag in flags_of(name)),
            shown(default),
            allowed(rule),
            in_docs(rule.help),
        )
        for name, rule, default in rules(options)
    )
    return table(("in Python", "on the command line", "default", "values", ""), lines)


def in_docs(help: str) -> str:
    """What an option or an output does, with the options that it names as they are typed."""
    return worded(help, lambda *marked: f"`{as_flag(*marked)}`")


def outputs_table() -> str:
    """A line an output."""
    lines = (
        (
            f"`{row.name}`",
            f"`{row.path}`",
            in_docs(row.help),
            "by default" if row.is_default else f"`{row.flag}`" if row.flag else "",
        )
        for row in all_outputs().values()
    )
    return table(("name", "files", "", "written"), lines)


def codecs_table() -> str:
    """A line a codec of video."""
    lines = (
        (f"`{name}`", codec.words, f"{codec.encoder}, {codec.pixel_format}", container_for(name, None).upper())
        for name, codec in VIDEO_CODECS.items()
    )
    return table(("", "", "encoder and pixels", "container"), lines)


# Codecs of sound that people have.
SOUND = ("aac", "mp3", "ac3", "opus", "flac", "pcm_s16le", "vorbis")


def sound_table() -> str:
    """A line a codec of sound, a column a codec of video."""
    lines = ((sound, *(container_for(codec, sound).upper() for codec in VIDEO_CODECS)) for sound in SOUND)
    return table(("sound", *(f"`{codec}`" for codec in VIDEO_CODECS)), lines)


def presets_table() -> str:
    """A line a preset of EXR."""
    lines = (
        (
            f"`{name}`",
            ", ".join(f"`{channel}`" for channel in preset.channels),
            "far-white: large is far" if preset.is_far_white else "near-white: large is near",
        )
        for name, preset in EXR_PRESETS.items()
    )
    return table(("", "channels", "polarity"), lines)


# Cards that people have, with their compute capability.
CARDS = (
    ("GTX 10, V100", (7, 0)),
    ("T4, RTX 20", (7, 5)),
    ("A100, A30", (8, 0)),
    ("RTX 30, A40, A10, RTX A6000", (8, 6)),
    ("RTX 40, L4, L40", (8, 9)),
    ("H100, H200, GH200", (9, 0)),
    ("B200", (10, 0)),
    ("RTX 50, RTX PRO 6000", (12, 0)),
    ("GB10", (12, 1)),
)


def libraries_table() -> str:
    """A line a kind of card, and one for no card."""
    return table(("card", "capability", "library", "driver 580 and later", "driver 525.60 to 579", "why"), _libraries())


def _libraries() -> Iterator[tuple[str, ...]]:
    for name, (major, minor) in CARDS:
        card = Card(name, (major, minor), "580", 0, 0)
        try:
            new, old = (
                choose_library(replace(card, driver=driver), "auto", "linux", "x86_64") for driver in ("580", "550")
            )
        except NoLibrary as error:
            yield name, f"{major}.{minor}", "none", "", "", error.reason.replace(f"{name} has", "it has")
            continue
        yield name, f"{major}.{minor}", new.name, f"`{new.extra}`", f"`{old.extra}`", new.reason
    none = choose_library(None, "auto", "linux", "x86_64")
    yield "none", "", none.name, f"`{none.extra}`", "", none.reason


def original_table() -> str:
    """A line an option of the original's `run.py`."""
    lines = (
        (
            f"`{flag}`",
            f"`{row.default}`" if row.default else "",
            row.told("") if row.instead else f"`{flag}`",
            row.differs,
        )
        for name, row in ORIGINAL.items()
        for flag in [f"--{name.replace('_', '-')}"]
    )
    return table(("of the original", "its default", "here", ""), lines)


def shown(value: Any) -> str:
    """A default, as it is typed."""
    return "off" if value is False else f"`{value}`"


def allowed(rule: Rule) -> str:
    """The values that an option may have, in words."""
    if rule.choices:
        return ", ".join(f"`{choice}`" for choice in rule.choices)
    if rule.metavar:
        return ", ".join(f"`{value}`" for value in rule.metavar.split("|"))
    bounds = []
    if rule.least > -math.inf:
        bounds.append(f"at least {rule.least}")
    if rule.above > -math.inf:
        bounds.append(f"greater than {rule.above}")
    if rule.most < math.inf:
        bounds.append(f"at most {rule.most}")
    words = ", ".join(bounds)
    return f"{words}; or `{rule.instead}`" if rule.instead is not None else words


def table(heads: tuple[str, ...], lines: Iterator[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    rows = [heads, tuple("---" for _ in heads), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def replaced(page: str, name: str, made: str) -> str:
    """The page with `made` between the markers of that name.

    Raises:
        ValueError: it does not have both, once each and in this order.
    """
    begin, end = f"<!-- {name}: made by `make docs` -->", f"<!-- {name}: end -->"
    before, found, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended) or begin in rest or end in after:
        raise ValueError(f"A page must have the lines {begin!r} and {end!r}, in this order and once.")
    return f"{before}{begin}\n\n{made}\n\n{end}{after}"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Make the tables of docs/ anew from the code.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if something would change")
    check = parser.parse_args().check
    for (page, name), made in tables().items():
        path = DOCS / page
        before = path.read_text(encoding="utf-8")
        after = replaced(before, name, made)
        if check and after != before:
            sys.exit(f"The table {name} of docs/{page} is not what the code says; run `make docs`.")
        path.write_text(after, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
