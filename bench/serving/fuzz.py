"""A fuzzer of APIs, schemathesis, on a `dc-rt serve` of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from bench.checks import Checks
from bench.programs import new_environment
from bench.serving.service import QUICK, TOKEN, Service
from bench.soak.memory import write_clip

REQUIREMENT = "schemathesis>=4.3,<5"
CLIP = "clip.mp4"
EXAMPLES = "20"  # for each route, in a round


def fuzzed(folder: Path, requests: int, checks: Checks) -> dict[str, Any]:
    """Have it send requests of all kinds that openapi.json describes, and of kinds that it does not allow.

    It is installed into an environment of its own: it brings many packages, in versions of its choice.

    Args:
        requests: at least; it sends more where its last round does not end there.
    """
    program = new_environment(folder / "environment", REQUIREMENT) / "schemathesis"
    root = folder / "root"
    root.mkdir()
    write_clip(root / CLIP, 16, 64, 64)
    sent, rounds, failures = 0, 0, ""
    with Service(folder / "fuzzed", "--root", str(root), token=TOKEN) as service:
        id = service.upload(root / CLIP, QUICK)["id"]
        list(service.events(id))
        while sent < requests and not failures:
            report, said = _round(program, folder, service.url, id if rounds % 2 == 0 else "", rounds)
            sent += report["test_cases"]["generated"]
            rounds += 1
            failures = said if report["exit_code"] else ""
            print(f"  round {rounds}: {sent} requests", flush=True)
        is_ready = service.ask("GET", "/ready").status == 200
        tracebacks = [line for line in service.log if "Traceback" in line]
    checks.see("schemathesis finds no answer of 500 and above", not failures, failures or f"{sent} requests")
    checks.see("the service is ready after it", is_ready)
    checks.see("its log has no traceback", not tracebacks, tracebacks or "")
    return {"requests": sent, "rounds": rounds, "schemathesis": report["schemathesis_version"]}


def _round(program: Path, folder: Path, url: str, id: str, seed: int) -> tuple[dict[str, Any], str]:
    """What it reports, and what it printed; of one job, which is left there, or of whichever it comes upon."""
    known = f'[parameters]\n"path.id" = "{id}"\n"body.path" = "{CLIP}"\n'
    (folder / "schemathesis.toml").write_text(known if id else "")
    path = folder / "report.json"
    command = [
        *(str(program), "--config-file", "schemathesis.toml", "run", f"{url}/openapi.json"),
        *("--header", f"Authorization: Bearer {TOKEN}", "--seed", str(seed), "--max-examples", EXAMPLES),
        *("--checks", "not_a_server_error", "--continue-on-failure", "--request-timeout", "20"),
        *(("--exclude-method", "DELETE") if id else ()),
        *("--report", "json", "--report-json-path", str(path)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    report: dict[str, Any] = json.loads(path.read_text())
    return report, done.stdout
