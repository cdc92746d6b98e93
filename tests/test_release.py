"""What `make release` refuses, and that it tags what it has built and tried: in a repository of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from install_helpers import ROOT

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="there is no git")

CHANGELOG = "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-11-27\n\n- All of it.\n"


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
    return subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """What can be released as 1.2.3: all is committed, and there is nothing to build."""
    folder = tmp_path / "repository"
    (folder / "runtime" / "dc_rt").mkdir(parents=True)
    (folder / "runtime" / "dc_rt" / "_version.py").write_text('__version__ = "1.2.3"\n')
    (folder / "CHANGELOG.md").write_text(CHANGELOG)
    (folder / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "release.py", folder / "tools")
    git(tmp_path, "init", "--quiet", str(folder))
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "All of it")
    return folder


def refusal(repository: Path, version: str) -> str:
    """The one sentence; nothing is built and nothing tagged."""
    tags = git(repository, "tag")
    command = [sys.executable, str(repository / "tools" / "release.py"), version]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert git(repository, "tag") == tags
    assert not (repository / "dist").exists()
    (sentence,) = done.stderr.splitlines()
    return sentence


@pytest.mark.parametrize("version", ["", "1.2", "v1.2.3", "1.2.3rc1"])
def test_what_is_no_version_is_refused(repository: Path, version: str) -> None:
    assert "is no version of three numbers; give one: make release VERSION=1.2.3" in refusal(repository, version)


def test_another_version_than_the_code_has_is_refused(repository: Path) -> None:
    assert re.search(r"dc_rt.*_version\.py has 1\.2\.3, not 1\.2\.4; write", refusal(repository, "1.2.4"))


@pytest.mark.parametrize("line", ["## [Unreleased]", "## [1.2.3] - unreleased", "## [1.2.30] - 2026-11-27"])
def test_a_version_that_the_changelog_lacks_is_refused(repository: Path, line: str) -> None:
    (repository / "CHANGELOG.md").write_text(f"# Changelog\n\n{line}\n")
    git(repository, "commit", "--quiet", "--all", "--message", "Forget a version")
    assert "CHANGELOG.md has no line `## [1.2.3] - YYYY-MM-DD`" in refusal(repository, "1.2.3")


def test_changes_that_are_not_committed_are_refused(repository: Path) -> None:
    (repository / "new.py").touch()
    assert "There are changes that are not committed (new.py, ...)" in refusal(repository, "1.2.3")


def test_a_version_is_released_once(repository: Path) -> None:
    git(repository, "tag", "v1.2.3")
    assert "There is a tag v1.2.3 already; choose the next version." in refusal(repository, "1.2.3")


@pytest.mark.soak
def test_a_version_is_built_tried_and_tagged(tmp_path: Path) -> None:
    """The whole of this checkout, in a copy."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    folder = tmp_path / "repository"
    for name in listed.stdout.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "runtime" / "dc_rt" / "_version.py").write_text('__version__ = "1.2.3"\n')
    (folder / "CHANGELOG.md").write_text(CHANGELOG)
    git(tmp_path, "init", "--quiet", str(folder))
    for words in (("config", "user.name", "Somebody"), ("config", "user.email", "somebody@example.org"), ("add", ".")):
        git(folder, *words)
    git(folder, "commit", "--quiet", "--message", "All of it")
    subprocess.run([sys.executable, str(folder / "tools" / "release.py"), "1.2.3"], check=True)
    assert git(folder, "tag").split() == ["v1.2.3"]
    assert len(list((folder / "dist").glob("depthcrafter_rt-1.2.3*"))) == 2
    assert git(folder, "status", "--porcelain") == ""
