"""The step that times: bench/latency.py, the engines and PyTorch taking turns."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.gpu_check.manifests import prepared
from bench.gpu_check.models import Check
from bench.gpu_check.needs import REFERENCE, lacking
from bench.gpu_check.rows import FAILED, MEASURED, SKIPPED, Row, judged
from bench.speed import latency
from bench.speed.worker import Task
from dc_rt.engine import Manifest


def latency_step(
    check: Check,
    folder: Path,
    given: bool,
    backend: str | None,
    video: Path,
    fresh: bool,
    results: Path,
    label: str,
) -> Iterator[Row]:
    """bench/latency.py on the backends, and their speed-ups against targets; without a backend PyTorch's alone."""
    if backend is None and not given:
        if reason := lacking(REFERENCE):
            yield Row("latency", SKIPPED, note=f"neither TensorRT nor ONNX Runtime runs here, and {reason}")
            return
        folder = prepared(check)
    manifest = Manifest.read(folder)
    profile, clip = manifest.profile, check.latency
    task = Task(folder.resolve(), video, profile.height.opt, profile.width.opt, clip.frames, clip.sampling)
    wanted = [*([backend] if backend else []), *check.backends]
    names, absent = latency.choose_backends(wanted, task.engines)
    found, order = latency.measure(names, task, check.runs, fresh)
    record = {"runs": check.runs, "order": order, "fresh_processes": fresh} | latency.record_of(task, found, absent, {})
    latency.write(record, results, f"latency-{check.name}-{label}")
    yield from latency_rows(record, backend, check.speed_targets)


def latency_rows(record: Mapping[str, Any], backend: str | None, targets: Mapping[str, float]) -> list[Row]:
    """A row a backend with its time, and one for every other with how much faster `backend` is.

    Speed-ups leave out reading and writing, which `dc-rt infer` does beside the model: medians over runs, each against
    the other's run of the same round.
    """
    job, backends = record["job"], record["backends"]
    size = f"{job['frames']} frames of {job['width']}x{job['height']}, window {job['window']}, steps {job['steps']}"
    rows = []
    for row in backends.values():
        if "absent" in row:
            status = FAILED if row.get("failed") else SKIPPED
            rows.append(Row(f"time of {row['title']}", status, note=row["absent"]))
        else:
            rows.append(Row(f"time of {row['title']}", MEASURED, _per_frame(row, job["frames"]), note=size))
    ours = backends.get(backend)
    for name, row in backends.items():
        if name == backend:
            continue
        what = f"speed-up over {row['title']}"
        target = targets.get(name)
        missing = [each["title"] for each in (ours, row) if each and "absent" in each]
        if ours is None or missing:
            reason = f"{' and '.join(missing)} did not run" if ours else "neither TensorRT nor ONNX Runtime runs here"
            rows.append(Row(what, SKIPPED, target=f">= {target:g}" if target else "", note=reason))
            continue
        times = zip(row[MODEL_SECONDS], ours[MODEL_SECONDS], strict=True)
        ratio = statistics.median(other / own for other, own in times)
        note = f"of {ours['title']}; with reading and writing {_all_ms(row) / _all_ms(ours):.2f}x"
        if target:
            rows.append(judged(what, ratio, target, f"{ratio:.2f}x", note, least=True))
        else:
            rows.append(Row(what, MEASURED, f"{ratio:.2f}x", note=note))
    return rows


MODEL_SECONDS = "runs_seconds_of_the_model"


def _per_frame(row: Mapping[str, Any], frames: int) -> str:
    return f"{1000 * statistics.median(row[MODEL_SECONDS]) / frames:.1f} ms/frame"


def _all_ms(row: Mapping[str, Any]) -> float:
    return float(row["ms_per_frame"]["all"]["median"])
