"""What tests of the service share: what a refusal looks like, and results to compare with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bench.clips import DEMO
from bench.serving.service import QUICK, Answer, Service
from command_helpers import dc_rt
from dc_rt.options import flags_of


def assert_refused(answer: Answer, status: int, message: str = "") -> None:
    """The status, and one sentence in JSON with nothing else."""
    assert answer.status == status, answer.body
    assert set(answer.json) == {"error"}
    sentence = answer.json["error"]
    assert re.search(message, sentence), sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert "Traceback" not in sentence


def root_of(service: Service) -> Path:
    """The folder whose videos may be named by their path, where a test has given one: beside that of the jobs."""
    return service.folder.parent / "root"


def finished(service: Service, id: str) -> dict[str, Any]:
    """The job once it has ended well."""
    *_, last = service.events(id)
    job = service.job(id)
    assert (last.kind, last.data["status"], job["status"]) == ("Status", "finished", "finished"), job["error"]
    return job


def inferred(folder: Path, **options: object) -> dict[str, bytes]:
    """What `dc-rt infer` makes of the demo with these options: contents by name, but for the record."""
    flags = [word for name, value in options.items() for word in (flags_of(name)[0], str(value))]
    done = dc_rt("infer", DEMO, "--save-folder", folder, *flags)
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".mp4"}


__all__ = ["DEMO", "QUICK", "Answer", "Service", "assert_refused", "finished", "inferred", "root_of"]
