"""The README's table of speeds, made from the results of `bench/latency.py`.

python -m bench.speed.readme_table            # rewrites the README between its two markers
python -m bench.speed.readme_table --check    # exits with 1 where it would change something
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.records import RESULTS
from bench.speed.latency import PUBLISHED
from bench.speed.machine import in_words

README = Path(__file__).parents[2] / "README.md"
BEGIN = "<!-- speeds: made by bench/speed/readme_table.py from bench/results/ -->"
END = "<!-- speeds: end -->"


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The results of `bench/latency.py` in a folder: latency.json and all that begin so, by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("latency*.json"))]


def render(records: Sequence[Mapping[str, Any]]) -> str:
    """All records as Markdown, one below the other."""
    if not records:
        return "Nothing has been measured yet: `python bench/latency.py` does it.\n"
    return "\n".join(_table(record) for record in records)


def replaced(readme: str, table: str) -> str:
    """The README with `table` between its markers.

    Raises:
        ValueError: it does not have both, once each and in this order.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in after:
        raise ValueError(f"The README must have the lines {BEGIN!r} and {END!r}, in this order and once.")
    return f"{before}{BEGIN}\n\n{table}\n{END}{after}"


def _table(record: Mapping[str, Any]) -> str:
    job, versions = record["job"], record["versions"]
    rows = record["backends"]
    present = {name: row for name, row in rows.items() if "ms_per_frame" in row}
    heads = ("", "ms/frame", "denoise", "against PyTorch eager", "peak memory", "cold start", "installed")
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' + '---:|' * (len(heads) - 1)}"]
    fastest = min((row["ms_per_frame"]["all"]["median"] for row in present.values()), default=0.0)
    for row in present.values():
        all_stages = row["ms_per_frame"]["all"]
        best = "**" if all_stages["median"] == fastest else ""
        cells = (
            row["title"],
            f"{best}{_number(all_stages['median'])}{best} ({_range(all_stages, _number)})",
            _number(row["ms_per_frame"]["denoiser"]["median"]),
            _times(row.get("speed_up")),
            _megabytes(row.get("peak_memory_mb"), row.get("peak_gpu_memory_mb")),
            f"{row['cold_start_seconds']['median']:.1f} s" if "cold_start_seconds" in row else "",
            _megabytes(row.get("installed_mb")),
        )
        lines.append(f"| {' | '.join(cells)} |")
    told = f"{PUBLISHED['ms_per_frame']} ({PUBLISHED['ms_per_frame_before']} before)"
    lines.append(f"| {PUBLISHED['title']} | {told} | | | GPU {PUBLISHED['gpu_memory_gb']} GB | | |")
    absent = "; ".join(f"{row['title']} ({row['absent']})" for row in rows.values() if "absent" in row)
    packages = [
        f"{title} {versions[package]}"
        for package, title in (
            ("onnxruntime", "ONNX Runtime"),
            ("onnxruntime-gpu", "ONNX Runtime"),
            ("openvino", "OpenVINO"),
            ("tensorrt-cu13", "TensorRT"),
            ("torch", "PyTorch"),
        )
        if package in versions
    ]
    notes = [
        f"{record['model']} in {record['precision']}, {job['frames']} frames of {job['width']}x{job['height']}, "
        f"window {job['window']}, {job['steps']} steps; medians of {record['runs']} interleaved runs, smallest and "
        f"largest in brackets. {in_words(record['machine'])}; {', '.join(packages)}."
    ]
    notes.append(
        "The last row is what the original's authors state of the real model on their card: it was not measured here, "
        "and is nothing to compare a small model on another machine with."
    )
    if absent:
        notes.append(f"Not measured: {absent}.")
    return "\n".join([*lines, "", " ".join(notes), ""])


def _number(value: float) -> str:
    """Three digits that count, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _times(speed_up: Mapping[str, float] | None) -> str:
    if speed_up is None:
        return ""
    return f"{speed_up['median']:.2f}x ({_range(speed_up, '{:.2f}'.format)})"


def _range(values: Mapping[str, float], form: Callable[[float], str]) -> str:
    return f"{form(values['min'])} to {form(values['max'])}"


def _megabytes(host: float | None, gpu: float | None = None) -> str:
    if host is None:
        return ""
    size = f"{host / 1000:.1f} GB" if host >= 1000 else f"{host:.0f} MB"
    return f"{size}, GPU {gpu / 1000:.1f} GB" if gpu is not None else size


def main() -> None:
    """Rewrite the README, or check it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, exit with 1 where it would")
    arguments = parser.parse_args()
    readme = README.read_text(encoding="utf-8")
    new = replaced(readme, render(read_records(RESULTS)))
    if arguments.check and new != readme:
        raise SystemExit("The README's table is not what bench/results/ says; run python -m bench.speed.readme_table.")
    if not arguments.check:
        README.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
