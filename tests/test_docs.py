"""The documentation says what the code does: tables made from it, links that lead somewhere, a short README."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from dc_rt.options import Outputs, Sampling, Source, rules
from dc_rt.outputs import all_outputs
from install_helpers import ROOT

sys.path.insert(0, str(ROOT / "tools"))

import docs_tables

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize(("page", "name"), docs_tables.tables())
def test_the_tables_are_made_from_the_code(page: str, name: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    made = docs_tables.tables()[page, name]
    assert docs_tables.replaced(text, name, made) == text, "run `make docs`"


def test_every_option_and_output_has_its_line() -> None:
    made = docs_tables.tables()
    for options in (Sampling, Source, Outputs):
        for name, *_ in rules(options):
            assert f"| `{name}` |" in made["options.md", options.__name__]
    assert len(made["outputs.md", "outputs"].splitlines()) == 2 + len(all_outputs())


@pytest.mark.parametrize("page", ["", "<!-- outputs: end --><!-- outputs: made by `make docs` -->"])
def test_a_page_without_markers_is_an_error(page: str) -> None:
    with pytest.raises(ValueError, match="must have the lines"):
        docs_tables.replaced(page, "outputs", "")


def anchors(path: Path) -> set[str]:
    """Of a page's headings, as the forge makes them."""
    heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        path = (page.parent / name) if name else page
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), link


def test_every_page_is_found_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = [path.relative_to(ROOT).as_posix() for path in PAGES if path.name != "README.md"]
    assert [page for page in pages if f"]({page})" not in text] == []


def test_the_readme_is_for_its_first_reader() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
    assert 30 <= len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= 60


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named = re.findall(r"`make ((?:[a-z-]+ ?)+)", text) + re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)
        assert {word for words in named for word in words.split()} <= targets, page.name
