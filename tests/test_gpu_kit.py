"""The kit for machines without a network: its parts, its checksums, what goes into it and what does not."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from install_helpers import ROOT

sys.path.insert(0, str(ROOT / "tools"))

import gpu_kit
import kit


def make_kit(folder, size=1000):
    """A folder of two files, one of `size` bytes, with its checksums."""
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    (wheels / "large.whl").write_bytes(bytes(number % 251 for number in range(size)))
    (wheels / "small.whl").write_bytes(b"small")
    kit.write_sums(folder)
    return folder


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("size", [1000, 1200, 301])
def test_what_is_split_is_joined_byte_for_byte(tmp_path, size):
    before = contents(make_kit(tmp_path, size))
    parts = kit.split(tmp_path, 300)
    assert len(parts) == -(-size // 300)
    assert all(path.stat().st_size <= 300 for path in (tmp_path / "wheels").iterdir())
    assert [path.name for path in kit.join(tmp_path)] == ["large.whl"]
    assert contents(tmp_path) == before
    assert kit.check(tmp_path) == 2


@pytest.mark.parametrize("harm", ["damaged", "missing", "last"])
def test_a_damaged_or_missing_part_is_refused_and_all_parts_are_kept(tmp_path, harm):
    parts = kit.split(make_kit(tmp_path), 300)
    if harm == "damaged":
        parts[1].write_bytes(parts[1].read_bytes()[::-1])
    else:
        parts.pop(-1 if harm == "last" else 1).unlink()
    with pytest.raises(kit.KitError, match=r"parts of large\.whl do not make the file"):
        kit.join(tmp_path)
    assert all(part.exists() for part in parts if harm == "damaged")
    assert not (tmp_path / "wheels" / "large.whl").exists()


def test_a_file_that_was_changed_or_is_gone_is_told_of(tmp_path):
    make_kit(tmp_path)
    (tmp_path / "wheels" / "small.whl").write_bytes(b"other")
    with pytest.raises(kit.KitError, match=r"small\.whl was changed or damaged"):
        kit.check(tmp_path)
    (tmp_path / "wheels" / "small.whl").unlink()
    with pytest.raises(kit.KitError, match=r"small\.whl is missing"):
        kit.check(tmp_path)


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="there is no sha256sum")
def test_checksums_are_those_that_sha256sum_reads(tmp_path):
    make_kit(tmp_path)
    done = subprocess.run(["sha256sum", "--check", kit.SUMS], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0


def test_the_kit_s_script_works_alone_and_answers_in_a_sentence(tmp_path):
    """Isolated, and without the packages of this environment: the standard library is all that it has."""
    kit.split(make_kit(tmp_path / "kit"), 300)
    script = Path(shutil.copy(kit.__file__, tmp_path / "kit" / "kit.py"))
    run = [sys.executable, "-I", "-S", str(script)]
    done = subprocess.run([*run, "join"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "wheels/large.whl")
    refused = subprocess.run([*run, "install"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "has no PyTorch" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_folder_that_is_no_kit_is_refused(tmp_path, capsys):
    assert gpu_kit.main(["join", str(tmp_path)]) == 1
    assert "make gpu-kit" in capsys.readouterr().err


def test_the_kit_leaves_pytorch_to_the_machine():
    names = [gpu_kit.name_of(line) for line in gpu_kit.wanted_requirements()]
    assert "torch" not in names
    assert {"diffusers", "av", "OpenEXR", "onnxruntime-gpu", "tensorrt-rtx-cu13", "cuda-bindings", "xformers"} < set(
        names
    )
    assert "onnxruntime" not in names, "it is the same module as onnxruntime-gpu"
    assert not any("[" in line for line in gpu_kit.wanted_requirements()), "extras would bring NVIDIA's libraries"


def test_with_the_stand_in_pip_takes_no_pytorch(tmp_path):
    """A package that requires PyTorch is resolved without an index."""
    stand_in = gpu_kit.write_stand_in(tmp_path)
    needs_torch = tmp_path / "needy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(needs_torch, "w") as wheel:
        wheel.writestr(
            "needy-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: needy\nVersion: 1.0\nRequires-Dist: torch>=2\n",
        )
        wheel.writestr("needy-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("needy-1.0.dist-info/RECORD", "")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-index", "--disable-pip-version-check"]
    wanted = ["--find-links", str(tmp_path), "--dest", str(tmp_path / "got"), "needy", f"torch=={gpu_kit.STAND_IN}"]
    done = subprocess.run([*pip, *wanted], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "got").iterdir()) == [needs_torch.name, stand_in.name]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no checkout of Git's")
def test_the_packed_checkout_has_what_a_dry_run_takes(tmp_path):
    gpu_kit.pack_checkout(tmp_path / "checkout.tar.gz")
    with tarfile.open(tmp_path / "checkout.tar.gz") as archive:
        names = set(archive.getnames())
    for name in ("Makefile", "bench/gpu_check/check.py", "examples/demo.mp4", "engines/profiles.toml"):
        assert f"{kit.SOURCE}/{name}" in names
