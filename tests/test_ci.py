"""What runs elsewhere (the public workflow, the hooks before a commit) calls what there is in the Makefile."""

from __future__ import annotations

import re
from typing import Any

import pytest

from install_helpers import ROOT

TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.fixture(scope="module")
def jobs() -> dict[str, Any]:
    return read(".github/workflows/check.yml")["jobs"]


def read(name: str) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: it comes with the extra export")
    # All as text: YAML 1.1 takes `on` for true and 3.10 for 3.1.
    loaded: dict[str, Any] = yaml.load((ROOT / name).read_text(encoding="utf-8"), yaml.BaseLoader)
    return loaded


def commands(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_the_workflow_runs_targets_that_exist(jobs: dict[str, Any]) -> None:
    called = {
        target
        for job in jobs.values()
        for command in commands(job)
        for target in re.findall(r"^make ([a-z-]+)", command, re.MULTILINE)
    }
    called |= {row["target"] for row in jobs["libraries"]["strategy"]["matrix"]["include"]}
    assert called == {"check", "test-oldest", "test-newest"}
    assert called <= TARGETS


def test_ci_and_the_workflow_check_the_same(jobs: dict[str, Any]) -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("make ")] == commands(jobs["check"]) == ["make check"]


def test_three_systems_and_the_oldest_and_newest_python_are_tried(jobs: dict[str, Any]) -> None:
    matrix = jobs["runtime"]["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    lowest = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert lowest
    assert matrix["python"][0] == lowest[1]
    assert len(matrix["python"]) > 1
    # Windows has no make, and PowerShell no `&&` in its older versions.
    assert [command for command in commands(jobs["runtime"]) if re.search(r"\bmake\b|&&|\\$|'", command)] == []


def test_the_workflow_may_read_and_nothing_else() -> None:
    workflow = read(".github/workflows/check.yml")
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] == "true"
    assert all("timeout-minutes" in job and "permissions" not in job for job in workflow["jobs"].values())
    used = {step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step}
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", name) for name in used), used


def test_the_hooks_are_the_tools_of_make_lint_and_download_nothing() -> None:
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert recipe
    tools = re.findall(r"\$\(DEV\)/bin/(ruff \w+|mypy)", recipe[1])
    entries = [hook["entry"] for hook in repository["hooks"]]
    assert len(tools) == 3
    assert all(any(entry.startswith(f".venv-dev/bin/{tool}") for entry in entries) for tool in tools)
