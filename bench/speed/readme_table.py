"""The README's table of speeds, made from the results of `bench/latency.py` and of `bench/speed/limits.py`.

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


CALCULATED_FOR = ("H100 SXM", "A100 SXM 80 GB", "RTX 4090")
"""The GPUs whose counted limit the README tells; `python -m bench.speed.limits` prints all."""


def read_limits(folder: Path) -> dict[str, Any] | None:
    """The result of `bench/speed/limits.py` in a folder; None where there is none."""
    path = folder / "limits.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The results of `bench/latency.py` in a folder: latency.json and all that begin so, by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("latency*.json"))]


def render(records: Sequence[Mapping[str, Any]], limits: Mapping[str, Any] | None = None) -> str:
    """All records as Markdown, one below the other, each with the counted limits as its last rows."""
    if not records:
        return "Nothing has been measured yet: `python bench/latency.py` does it.\n"
    return "\n".join(_table(record, limits) for record in records)


def replaced(page: str, table: str, markers: tuple[str, str] = (BEGIN, END)) -> str:
    """The page, the README unless other markers are given, with `table` between its two markers.

    Raises:
        ValueError: it does not have both, once each and in this order.
    """
    first, last = markers
    before, begin, rest = page.partition(first)
    _, end, after = rest.partition(last)
    if not (begin and end) or first in rest or last in after:
        raise ValueError(f"The page must have the lines {first!r} and {last!r}, in this order and once.")
    return f"{before}{first}\n\n{table}\n{last}{after}"


def _table(record: Mapping[str, Any], limits: Mapping[str, Any] | None) -> str:
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
            f"{best}{number(all_stages['median'])}{best} ({_range(all_stages, number)})",
            number(row["ms_per_frame"]["denoiser"]["median"]),
            _times(row.get("speed_up")),
            _megabytes(row.get("peak_memory_mb"), row.get("peak_gpu_memory_mb")),
            f"{row['cold_start_seconds']['median']:.1f} s" if "cold_start_seconds" in row else "",
            _megabytes(row.get("installed_mb")),
        )
        lines.append(f"| {' | '.join(cells)} |")
    told = f"{PUBLISHED['ms_per_frame']} ({PUBLISHED['ms_per_frame_before']} before)"
    lines.append(f"| {PUBLISHED['title']} | {told} | | | GPU {PUBLISHED['gpu_memory_gb']} GB | | |")
    lines += [f"| {title} | {told} | | | | | |" for title, told in _calculated(limits).items()] if limits else []
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
        "The original's row is what its authors state of the real model on their card: it was not measured here, "
        "and is nothing to compare a small model on another machine with."
    )
    if limits:
        reached = limits["reached"]
        notes.append(
            "The calculated rows are of the real model too and **were not measured**: its operations and traffic are "
            f"counted, and a card is taken to reach {reached['operations']:.0%} of its published peak and "
            f"{reached['traffic']:.0%} of its bandwidth; fused without and loose with the traffic between products "
            "(`python -m bench.speed.limits` says all that is assumed)."
        )
    if absent:
        notes.append(f"Not measured: {absent}.")
    return "\n".join([*lines, "", " ".join(notes), ""])


def _calculated(limits: Mapping[str, Any]) -> dict[str, str]:
    """By title the counted limits of some GPUs, in words."""
    rows = {(row["gpu"], row["sampler"], row["encoder"]): row["ms_per_frame"] for row in limits["rows"]}
    told = {key: f"{fused:.0f} to {loose:.0f}" for key, (fused, loose) in rows.items()}
    return {
        f"calculated: {gpu}, {limits['width']}x{limits['height']}, {sampler}, fp16": (
            f"{told[gpu, sampler, 'fp16']} (encoder in TF32: {told[gpu, sampler, 'tf32']})"
        )
        for gpu in CALCULATED_FOR
        for sampler in limits["evaluations_per_frame"]
    }


def number(value: float) -> str:
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
    new = replaced(readme, render(read_records(RESULTS), read_limits(RESULTS)))
    if arguments.check and new != readme:
        raise SystemExit("The README's table is not what bench/results/ says; run python -m bench.speed.readme_table.")
    if not arguments.check:
        README.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
