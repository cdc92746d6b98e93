"""The table: what all steps found on one GPU so far, in files and on the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.gpu_check.load import BACKENDS
from bench.gpu_check.rows import COLOURS, PASSED, Row
from bench.gpu_check.steps import STEPS
from bench.speed.machine import describe, in_words, versions


class Record:
    """The results so far of one GPU, in a file that is written after every row."""

    def __init__(self, results: Path, label: str, gpu: str) -> None:
        self._machine = {"machine": describe(), "versions": versions()}
        self.path = results / f"gpu-check-{label}.json"
        self.contents: dict[str, Any] = {"gpu": gpu, "steps": {}}
        if self.path.exists():
            try:
                self.contents = json.loads(self.path.read_text(encoding="utf-8"))
            except ValueError:
                print(f"{self.path} cannot be read; its results are left out.")

    def add(self, model: str, step: str, rows: Sequence[Row], seconds: float) -> None:
        """Put the results of a step, so far, in the place of its former ones, and write the files."""
        entry = {
            "model": model,
            "step": step,
            "seconds": round(seconds, 1),
            **self._machine,
            "rows": [asdict(row) for row in rows],
        }
        self.contents["steps"][f"{model} {step}"] = entry
        self.path.parent.mkdir(parents=True, exist_ok=True)
        texts = {".json": json.dumps(self.contents, indent=2) + "\n", ".md": in_markdown(self.contents)}
        for suffix, text in texts.items():  # whole or as before, whenever this may be ended
            beside = self.path.with_suffix(f"{suffix}.part")
            beside.write_text(text, encoding="utf-8")
            beside.replace(self.path.with_suffix(suffix))

    def backend(self, model: str) -> str | None:
        """What the step `load` found for a model; None where it found nothing, or has not been done."""
        rows = self.contents["steps"].get(f"{model} load", {}).get("rows", [])
        running = {row["what"] for row in rows if row["status"] == PASSED}
        return next((backend for row, backend in BACKENDS.items() if row in running), None)


HEAD = ("model", "step", "what", "found", "target", "verdict", "")


def line(model: str, step: str, row: Mapping[str, Any]) -> str:
    """A row of the table in Markdown."""
    cells = (model, step, *(row[name] for name in ("what", "value", "target", "status", "note")))
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def in_markdown(contents: Mapping[str, Any]) -> str:
    """The record as a table."""
    entries = _in_order(contents)
    lines = [
        f"# {contents['gpu']}",
        "",
        f"| {' | '.join(HEAD)} |",
        f"|{'---|' * len(HEAD)}",
    ]
    for entry in entries:
        lines += [line(entry["model"], entry["step"], row) for row in entry["rows"]]
    for words in dict.fromkeys(in_words(entry["machine"]) for entry in entries):
        lines += ["", f"{words}."]
    for found in dict.fromkeys(", ".join(map(" ".join, entry["versions"].items())) for entry in entries):
        lines += ["", f"{found}."]
    return "\n".join(lines) + "\n"


def report(contents: Mapping[str, Any], console: Console) -> None:
    """The record on the terminal."""
    table = Table(*HEAD, title=contents["gpu"])
    for entry in _in_order(contents):
        for number, row in enumerate(entry["rows"]):
            colour = COLOURS[row["status"]]
            verdict = f"[{colour}]{row['status']}[/]" if colour else row["status"]
            cells = (entry["model"], entry["step"]) if number == 0 else ("", "")
            texts = [escape(row[name]) for name in ("what", "value", "target", "note")]
            last = number == len(entry["rows"]) - 1
            table.add_row(*cells, *texts[:3], verdict, texts[3], end_section=last)
    console.print(table)


def _in_order(contents: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Steps by model, in the order that they are done in; last those that there are no more."""
    models = list(dict.fromkeys(entry["model"] for entry in contents["steps"].values()))
    places = {step: place for place, step in enumerate(STEPS)}

    def place(entry: Mapping[str, Any]) -> tuple[int, int]:
        return models.index(entry["model"]), places.get(entry["step"], len(places))

    return sorted(contents["steps"].values(), key=place)
