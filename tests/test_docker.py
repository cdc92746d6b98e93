"""The Dockerfile held against what it is made of; bench/soak/docker.py builds and runs it."""

import json
import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from dc_rt.errors import UserError
from dc_rt.serve.settings import TOKEN

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "docker.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def instructions():
    """Of the Dockerfile, in order: the word and what stands behind it, in one line."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line)]


def stages():
    """The instructions of each stage, from its FROM on; those before the first are left out."""
    found: list[list[tuple[str, str]]] = []
    for word, rest in instructions():
        if word == "FROM":
            found.append([])
        if found:
            found[-1].append((word, rest))
    return found


def is_sent(path):
    """Whether the builder is sent a file, by .dockerignore: the last line that fits it or a folder above it counts."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!")
            places = ("/".join(path.split("/")[:length]) for length in range(1, path.count("/") + 2))
            if any(fnmatch(place, pattern) or fnmatch(f"/{place}", pattern.replace("**", "*")) for place in places):
                sent = line.startswith("!")
    return sent


def test_the_builder_is_sent_all_that_the_package_is_made_of():
    build = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [f"{folder}/__init__.py" for folder in build["packages"]]
    needed += [*build["force-include"], PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]]
    needed += ["pyproject.toml", "constraints.txt", PROJECT["tool"]["hatch"]["version"]["path"]]
    assert [path for path in needed if not is_sent(path)] == []
    assert [path for path in needed if not (ROOT / path).exists()] == []


@pytest.mark.parametrize(
    "path",
    [".git/config", ".venv/bin/python", "demo_output/clip.json", "engines/depthcrafter/manifest.json", "token",
     "examples/still.mp4", "runtime/dc_rt/__pycache__/x.cpython-313.pyc", "checkpoints/x.safetensors"],
)  # fmt: skip
def test_the_builder_is_sent_nothing_else(path):
    assert not is_sent(path)


def test_the_image_runs_dc_rt_as_a_user_without_rights():
    last = dict(stages()[-1])
    user, _, group = last["USER"].partition(":")
    assert user.isdecimal()
    assert group.isdecimal()
    assert int(user) > 0
    assert json.loads(last["ENTRYPOINT"]) == ["dc-rt"]
    assert "dc-rt" in PROJECT["project"]["scripts"]
    assert last["STOPSIGNAL"] == "SIGINT"


def test_the_image_is_made_of_the_versions_that_are_tested_and_has_no_pytorch():
    commands = [rest for word, rest in instructions() if word == "RUN"]
    (install,) = (each for each in commands if "pip install" in each)
    assert "--constraint constraints.txt" in install
    assert "uninstall --yes setuptools pip" in install
    (extras,) = (rest.partition("=")[2] for word, rest in instructions() if word == "ARG" and rest.startswith("EXTRAS"))
    assert extras in PROJECT["project"]["optional-dependencies"]
    assert not any("torch" in rest.lower() for word, rest in instructions() if word in ("RUN", "ARG", "COPY"))
    assert [rest for word, rest in stages()[-1] if word == "COPY"] == ["--from=build /opt/dc-rt /opt/dc-rt"]


def test_the_page_names_arguments_and_extras_that_there_are():
    arguments = {rest.partition("=")[0] for word, rest in instructions() if word == "ARG"}
    used = re.findall(r"--build-arg (\w+)", PAGE)
    assert used
    assert {*used} <= arguments
    assert {*re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)} == arguments
    extras = {extra for each in re.findall(r"EXTRAS=([\w,-]+)", PAGE) for extra in each.split(",")}
    assert extras <= PROJECT["project"]["optional-dependencies"].keys()


def test_the_service_of_the_page_is_let_in_by_its_token_alone():
    (command,) = re.findall(r"dc-rt serve .*", PAGE.partition("## The service")[2].partition("```\n\n")[0])
    words = shlex.split(command)
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert options["--host"] == "0.0.0.0"
    assert f"{options['--token-file']}:ro" in PAGE
    TOKEN.check_reach(options["--host"], "a-token-of-twenty-nine-signs", False)
    with pytest.raises(UserError, match="there is no token"):
        TOKEN.check_reach(options["--host"], None, False)
