"""The tables of options, of outputs and of the original's options in `docs/`, made from the code.

PYTHONPATH=runtime python tools/docs_tables.py            # rewrites them between their markers: `make docs`
PYTHONPATH=runtime python tools/docs_tables.py --check    # exits with 1 where it would change something
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dc_rt.cli.original import ORIGINAL
from dc_rt.options import Outputs, Rule, Sampling, Source, flags_of, rules
from dc_rt.outputs import all_outputs

DOCS = Path(__file__).parents[1] / "docs"


def tables() -> dict[tuple[str, str], str]:
    """Every table in Markdown, by its page and its name there."""
    made = {("options.md", options.__name__): options_table(options) for options in (Sampling, Source, Outputs)}
    return made | {("outputs.md", "outputs"): outputs_table(), ("from-the-original.md", "run.py"): original_table()}


def options_table(options: type) -> str:
    """A line an option."""
    lines = (
        (f"`{name}`", " ".join(f"`{flag}`" for flag in flags_of(name)), shown(default), allowed(rule), rule.help)
        for name, rule, default in rules(options)
    )
    return table(("in Python", "on the command line", "default", "values", ""), lines)


def outputs_table() -> str:
    """A line an output."""
    lines = (
        (
            f"`{row.name}`",
            f"`NAME/frame_0000{row.suffix}`" if row.is_frames else f"`NAME{row.suffix}`",
            row.help,
            "by default" if row.is_default else f"`{row.flag}`" if row.flag else "",
        )
        for row in all_outputs().values()
    )
    return table(("name", "files", "", "written"), lines)


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
