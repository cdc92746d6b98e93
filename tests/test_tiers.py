"""The three tiers of tests: what `make fast` runs is a choice of what `make check` runs."""

import re
import subprocess
import sys

import pytest

from conftest import EXPORT_TESTS, QUICK, SLOW
from install_helpers import ROOT


@pytest.mark.parametrize("named", [*SLOW, *QUICK])
def test_what_is_called_slow_or_quick_exists(named: str) -> None:
    file, _, test = named.partition("::")
    text = (ROOT / "tests" / file).read_text(encoding="utf-8")
    assert not test or re.search(rf"^def {test}\(", text, re.MULTILINE)


def collected(*words: str) -> set[str]:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return set(re.findall(r"^tests/(test_\w+\.py::\w+)", done.stdout, re.MULTILINE))


def test_slow_ones_and_soaks_are_left_out() -> None:
    runtime = [str(path) for path in sorted((ROOT / "tests").glob("test_*.py")) if path.name not in EXPORT_TESTS]
    fast, all_tests = collected("-m", "not slow and not soak", *runtime), collected(*runtime)
    assert fast < all_tests
    assert {test for test in SLOW if "::" in test} <= all_tests - fast
    assert set(QUICK) <= fast
    assert {test for test in fast if test.split("::")[0] in SLOW} == set(QUICK)
    assert not any("built_tried_and_tagged" in test for test in all_tests)
    assert collected("-m", "soak", "tests/test_release.py")
