"""What the Makefile makes, with the real make: environments, and what is refused before one is made."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from conftest import EXPORT_TESTS
from install_helpers import PIP, ROOT, write_wheel

sys.path.insert(0, str(ROOT / "tools"))

from requirements import requirements

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="there is no make")

ALONE = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MAKEFLAGS", "MAKELEVEL")}


def make(folder, *words, environment=ALONE):
    command = ["make", "-C", str(folder), f"PYTHON={sys.executable}", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (["MODEL=typo"], "There is no MODEL=typo; choose one of depthcrafter nano random-full random-tiny"),
        (["PROFILE=typo"], "There is no PROFILE=typo in engines/profiles.toml; choose one of any film large 1024x576"),
        (["FLAVOUR=typo"], "There is no FLAVOUR=typo; choose auto, tensorrt or rtx"),
    ],
)
def test_a_name_that_does_not_exist_is_refused_before_anything_is_made(tmp_path, words, refusal):
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "engines").mkdir()
    shutil.copy(ROOT / "engines" / "profiles.toml", tmp_path / "engines")
    done = make(tmp_path, "engines", *words)
    assert done.returncode == 2
    assert refusal in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cwd") == ["Makefile", "engines"]


def test_variables_of_engines_are_nothing_to_other_targets():
    done = make(ROOT, "--dry-run", "demo", environment=ALONE | {"MODEL": "of another program"})
    assert done.returncode == 0, done.stderr


def test_the_lowest_versions_are_those_of_the_ranges():
    lowest = dict(line.split("==") for line in requirements([], lowest=True))
    stated = dict(re.findall(r"^([\w-]+)>=([\w.]+)", "\n".join(requirements([])), re.MULTILINE))
    assert lowest == stated
    assert {"numpy", "av", "onnxruntime"} <= lowest.keys()


def test_the_tested_versions_lie_in_the_ranges():
    packaging = pytest.importorskip("packaging.requirements")
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if not line.startswith("#"))
    for line in requirements(["export", "test", "bench", "rtx", "openvino"]):
        requirement = packaging.Requirement(line)
        assert tested.get(requirement.name, "") in requirement.specifier or "==" in line, line


FAKES = {"numpy", "av", "OpenEXR", "typer", "rich", "onnxruntime"}


@pytest.fixture
def checkout(tmp_path):
    """What `make install` needs, and wheels in the place of the libraries that it installs: they hold nothing."""
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("runtime/dc_rt", "export/dc_export", "depthcrafter", "engines", "examples"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("engines/profiles.toml", "examples/demo.mp4", "examples/balls.mp4"):
        (tmp_path / name).touch()
    shutil.copy(ROOT / "runtime" / "dc_rt" / "_version.py", tmp_path / "runtime" / "dc_rt")
    tested = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#")
    for name in FAKES:
        # Of two builds of one version pip takes the one with a suffix: not that of an index.
        module = f"{name}/__init__.py"
        write_wheel(tmp_path / "wheels", name, f"{tested[name]}+fake", {module: f"package = {name!r}"})
    gpu = {"onnxruntime/__init__.py": "package = 'onnxruntime-gpu'"}
    write_wheel(tmp_path / "wheels", "onnxruntime-gpu", "9999.0+fake", gpu)
    return tmp_path


def test_an_environment_for_a_gpu_stays_one_when_it_is_brought_up_to_date(checkout):
    environment = ALONE | {"PIP_FIND_LINKS": str(checkout / "wheels")}

    def runtimes():
        (folder,) = (checkout / ".venv" / "lib").glob("python*/site-packages")
        return sorted(path.name.split("-")[0] for path in folder.glob("onnxruntime*.dist-info"))

    def module():
        code = "import onnxruntime; print(onnxruntime.package)"
        command = [checkout / ".venv" / "bin" / "python", "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert make(checkout, "install", environment=environment).returncode == 0
    assert (runtimes(), module()) == (["onnxruntime"], "onnxruntime")
    done = make(checkout, "install-gpu", environment=environment)
    assert done.returncode == 0, done.stderr
    assert (runtimes(), module()) == (["onnxruntime_gpu"], "onnxruntime-gpu")
    # As after `git pull`.
    os.utime(checkout / "pyproject.toml")
    done = make(checkout, "install", environment=environment)
    assert done.returncode == 0, done.stderr
    assert "pip install" in done.stdout
    assert (runtimes(), module()) == (["onnxruntime_gpu"], "onnxruntime-gpu")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The source distribution, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    subprocess.run([sys.executable, *PIP, "install", "--target", folder / "hatchling", "hatchling"], check=True)
    build = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", folder]
    environment = os.environ | {"PYTHONPATH": str(folder / "hatchling")}
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, env=environment)
    (path,) = folder.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
    return folder / path.name.removesuffix(".tar.gz")


def test_the_sdist_has_all_that_the_checkout_has(sdist):
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    packed = {path.relative_to(sdist).as_posix() for path in sdist.rglob("*") if path.is_file()}
    # A file that was removed and is not committed yet is listed too.
    assert {name for name in listed.stdout.splitlines() if (ROOT / name).exists()} - packed == set()


def test_from_the_sdist_the_demo_has_what_it_runs_on(sdist):
    done = make(sdist, "--dry-run", "demo")
    assert done.returncode == 0, done.stderr
    (files,) = {frozenset(re.findall(r"\bexamples/[\w.]+", done.stdout))}
    assert files == {"examples/demo.mp4", "examples/show.py", "examples/demo_disparity.mkv"}
    assert all((sdist / file).is_file() for file in files)
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", (sdist / "README.md").read_text())
    assert pictures
    assert all((sdist / picture).is_file() for picture in pictures)


# Makes this environment one without them.
WITHOUT_EXPORT = """
import sys
sys.modules.update(dict.fromkeys(["torch", "onnx", "onnx_ir", "onnxscript", "diffusers", "transformers"]))
"""


def test_without_pytorch_the_runtimes_tests_are_collected_and_no_others():
    code = f"{WITHOUT_EXPORT}\nimport pytest; sys.exit(pytest.main(['--collect-only', '-p', 'no:cacheprovider']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    collected = set(re.findall(r"^tests/(test_\w+\.py)::", done.stdout, re.MULTILINE))
    assert collected == {path.name for path in (ROOT / "tests").glob("test_*.py")} - set(EXPORT_TESTS)


def test_only_what_cannot_be_imported_without_pytorch_is_left_out():
    code = f"""{WITHOUT_EXPORT}
sys.path.insert(0, {str(ROOT / "tests")!r})
for name in {[Path(name).stem for name in EXPORT_TESTS]}:
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    print(name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "", "these are tests of the runtime"


def test_the_library_of_the_other_cuda_makes_room_for_the_one_that_the_driver_runs(tmp_path):
    """With wheels that hold nothing in the place of NVIDIA's, of which those of both CUDAs are one module."""
    for cuda, bindings in ((12, "12.9.99"), (13, "13.9.99")):
        package = f"tensorrt-rtx-cu{cuda}"
        write_wheel(tmp_path / "wheels", package, "1.99.0", {f"{package.replace('-', '_')}/__init__.py": ""})
        module = {"tensorrt_rtx/__init__.py": f"cuda = {cuda}"}
        write_wheel(tmp_path / "wheels", f"{package}-bindings", "1.99.0", module)
        write_wheel(tmp_path / "wheels", "cuda-bindings", bindings, {"cuda_bindings_fake.py": ""})
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    environment = ALONE | {"PYTHONPATH": str(ROOT / "runtime"), "PIP_FIND_LINKS": str(tmp_path / "wheels")}
    environment |= {"PIP_NO_INDEX": "1"}
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]

    def choose(driver):
        card = {"DC_RT_GPU": f"NVIDIA GeForce RTX 3060, 8.6, {driver}, 12288, 12000"}
        # Versions that no index has are not those that are tested.
        command = [python, ROOT / "tools" / "gpu_library.py", "--constraints", os.devnull]
        done = subprocess.run(command, capture_output=True, text=True, env=environment | card, check=False)
        assert done.returncode == 0, done.stderr
        listing = [python, "-m", "pip", "list"]
        listed = subprocess.run(listing, capture_output=True, text=True, check=True, env=environment).stdout
        return done.stdout, re.findall(r"^(tensorrt\S+|cuda\S+) ", listed.lower().replace("_", "-"), re.MULTILINE)

    said, names = choose("550.54")
    assert "Installing tensorrt-rtx-cu12" in said
    assert names == ["cuda-bindings", "tensorrt-rtx-cu12"]
    subprocess.run([*pip, "tensorrt-rtx-cu12-bindings"], env=environment, check=True)
    said, _ = choose("550.54")
    assert "Installing" not in said
    said, names = choose("580.65")
    assert "Installing tensorrt-rtx-cu13" in said
    assert names == ["cuda-bindings", "tensorrt-rtx-cu13"]
    # Both over one another, as pip leaves them.
    subprocess.run([*pip, "tensorrt-rtx-cu12"], env=environment, check=True)
    said, names = choose("580.65")
    assert names == ["cuda-bindings", "tensorrt-rtx-cu13"]
