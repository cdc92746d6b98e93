"""A set that is exported anew: until the new one is whole, and whatever ends the export, the old one stays as it is."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dc_export import cli, export_onnx
from dc_export.staging import only_one, staged, swap, tidy
from dc_rt import UserError
from dc_rt.engine.discovery import BUNDLED
from dc_rt.engine.manifest import GRAPHS, Build, BuiltEngine, File, Manifest

QUIET: dict[str, Any] = {"report": lambda message: None}


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_graphs(folder, text, **changes):
    """Files that are called as graphs are, the denoiser's weights beside it; and their manifest, not yet written."""
    folder.mkdir(parents=True, exist_ok=True)
    for graph in GRAPHS:
        (folder / f"{graph}.onnx").write_text(f"{graph} {text}")
    data = folder / f"denoiser.{text * 16}.data"
    data.write_text(f"weights {text}")
    graphs: dict[str, tuple[File, ...]] = {graph: (File.of(folder / f"{graph}.onnx"),) for graph in GRAPHS}
    graphs["denoiser"] += (File.of(data),)
    return dataclasses.replace(Manifest.read(BUNDLED), graphs=graphs, **changes)


def add_builds(folder):
    """A record of four engines, and their files."""
    engines = {}
    for graph in GRAPHS:
        path = folder / f"{graph}.rtx.engine"
        path.write_text(f"engine of {graph}")
        engines[graph] = BuiltEngine(File.of(path), "1" * 64, 1.0, 5, 6)
    manifest = Manifest.read(folder)
    build = Build("1.7", "linux-x86_64", ("8.0",), (), manifest.profile, engines)
    dataclasses.replace(manifest, builds={"rtx": build}).write(folder)


@pytest.fixture
def old(tmp_path):
    """A set with engines."""
    folder = tmp_path / "set"
    write_graphs(folder, "a").write(folder)
    add_builds(folder)
    return folder


def replace(folder, text, **changes):
    with staged(folder) as staging:
        return swap(staging, folder, write_graphs(staging, text, **changes))


def test_a_new_set_takes_the_place_of_the_old_one(old):
    manifest = replace(old, "b")
    assert manifest == Manifest.read(old)
    manifest.check_contents(old)
    assert (old / "denoiser.onnx").read_text() == "denoiser b"
    assert not manifest.builds
    left = {path.name for path in old.iterdir()} - {f"{graph}.rtx.engine" for graph in GRAPHS}
    assert left == {"manifest.json", *(f"{graph}.onnx" for graph in GRAPHS), f"denoiser.{'b' * 16}.data"}


def test_engines_of_graphs_that_come_out_the_same_are_kept(old):
    before = Manifest.read(old).builds["rtx"]
    assert replace(old, "a", created="2026-11-25").builds == {"rtx": before}
    (old / "vae_encoder.onnx").write_text("other")
    with staged(old) as staging:
        manifest = write_graphs(staging, "a")
        (staging / "vae_decoder.onnx").write_text("new")
        graphs = {**manifest.graphs, "vae_decoder": (File.of(staging / "vae_decoder.onnx"),)}
        manifest = swap(staging, old, dataclasses.replace(manifest, graphs=graphs))
    assert list(manifest.builds["rtx"].engines) == ["clip_encoder", "vae_encoder", "denoiser"]
    manifest.check_contents(old)


KILL = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_staging import add_builds, contents, replace, write_graphs
from dc_rt.engine import Manifest

root = Path(sys.argv[1])
for number in range(1, 1000):
    folder = root / str(number)
    write_graphs(folder, "a").write(folder)
    add_builds(folder)
    old = Manifest.read(folder)
    child = os.fork()
    if not child:
        left = number
        def count(event, arguments):
            global left
            if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.copyfile", "shutil.rmtree"):
                left -= 1
                if not left:
                    os._exit(9)
        sys.addaudithook(count)
        replace(folder, "b", created="2026-11-25")
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found = Manifest.read(folder)
    found.check_contents(folder)
    texts = {{(folder / found.file(graph)).read_text()[-1] for graph in found.graphs}}
    assert len(texts) == 1, (number, texts)
    if texts == {{"a"}}:
        assert found == old, number
    else:
        assert not found.builds, number
    again = replace(folder, "b", created="2026-11-25")
    again.check_contents(folder)
    assert sorted(path.name for path in folder.iterdir() if path.suffix != ".engine") == sorted(
        ["manifest.json", *(file.name for files in again.graphs.values() for file in files)]
    ), number
    assert all(again.file(graph) == graph + ".onnx" for graph in again.graphs)
    if status == 0:
        print(number)
        break
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_swap_that_is_killed_anywhere_leaves_the_old_set_or_the_new_one(tmp_path):
    """Killed before each single thing that it does to the disk; and the next export ends it and leaves nothing over."""
    script = KILL.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30


def main(*arguments, monkeypatch, capsys):
    """The command line, in this process, which has PyTorch: its exit status and what it says on standard error."""
    monkeypatch.setattr(sys, "argv", ["dc-export", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code, capsys.readouterr().err.strip()


def assert_refused(outcome, *words):
    """One sentence, and exit status 1."""
    status, said = outcome
    assert status == 1, said
    assert "\n" not in said
    assert said.endswith(".")
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    "sources",
    [("--base", "/nowhere", "--unet", "nano"), ("--base", "nano", "--unet", "tencent/DepthCraftr")],
    ids=["no such base", "no such UNet"],
)
def test_an_export_that_fails_leaves_the_set_as_it_was(old, sources, monkeypatch, capsys):
    before = contents(old)
    assert main("onnx", "--out", old, *sources, monkeypatch=monkeypatch, capsys=capsys)[0] == 1
    assert contents(old) == before


def start_export(folder):
    """`dc-export onnx` into a set, once it has written a graph."""
    command = [sys.executable, "-m", "dc_export.cli", "onnx", "--base", "nano", "--unet", "nano", "--out", folder]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (folder / ".export" / "clip_encoder.onnx").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_export_that_is_interrupted_leaves_the_set_as_it_was(old, number, monkeypatch, capsys):
    before = contents(old)
    process = start_export(old)
    # Meanwhile whoever reads the set finds the old one, and no other export or build may write to it.
    Manifest.read(old).check_contents(old)
    for command in (("build", old), ("onnx", "--base", "nano", "--unet", "nano", "--out", old)):
        assert_refused(main(*command, monkeypatch=monkeypatch, capsys=capsys), "Another dc-export is working on")
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode
    assert "Traceback" not in errors
    left = {path: text for path, text in contents(old).items() if not path.startswith((".export", ".lock"))}
    assert left == before
    if number == signal.SIGKILL:
        assert (old / ".export").exists()
        with staged(old):  # the next export that gets as far as writing, whatever becomes of it
            pass
    assert contents(old) == before


def test_a_lock_ends_with_its_process_and_leaves_nothing(old):
    script = "import os, sys; from dc_export.staging import *; p = Path(sys.argv[1])\nwith only_one(p): "
    for end in ("os._exit(9)", "pass"):
        subprocess.run([sys.executable, "-c", script + end, old], check=False)
        with only_one(old):
            pass
        assert not (old / ".lock").exists()
    with only_one(old), pytest.raises(UserError, match="Another dc-export is working on"), only_one(old):
        pass


def test_a_set_of_another_version_is_left_alone_until_it_is_replaced(old):
    record = json.loads((old / "manifest.json").read_text())
    (old / "manifest.json").write_text(json.dumps(record | {"format": 2}))
    (old / "denoiser.onnx.data").write_text("of the other version")
    before = contents(old)
    tidy(old)
    assert contents(old) == before
    assert replace(old, "b").model == Manifest.read(old).model


def test_a_folder_that_an_export_made_in_vain_is_not_left(tmp_path, monkeypatch, capsys):
    main("onnx", "--base", "/nowhere", "--out", tmp_path / "new", monkeypatch=monkeypatch, capsys=capsys)
    assert not (tmp_path / "new").exists()


def test_a_name_that_no_manifest_may_have_is_refused(tmp_path):
    with pytest.raises(UserError, match="--name"):
        export_onnx("nano", "nano", tmp_path / "out", name="two\nlines", **QUIET)


# What the disk refuses.


@pytest.mark.parametrize("command", ["onnx", "build", "verify", "checkpoint"])
@pytest.mark.parametrize("kind", ["file", "below a file", "too long"])
def test_a_folder_that_cannot_be_is_one_sentence(command, kind, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("mine")
    folder = {"file": tmp_path / "file", "below a file": tmp_path / "file" / "set", "too long": tmp_path / ("x" * 300)}
    arguments = {
        "onnx": ("--base", "nano", "--unet", "nano", "--out", folder[kind]),
        "checkpoint": ("tiny", folder[kind]),
    }.get(command, (folder[kind],))
    assert_refused(main(command, *arguments, monkeypatch=monkeypatch, capsys=capsys), str(folder[kind])[:60])
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["manifest.json", "denoiser.onnx"])
def test_a_folder_in_the_place_of_a_file_is_one_sentence(name, tmp_path, monkeypatch, capsys):
    (tmp_path / "set" / name).mkdir(parents=True)
    arguments = ("--base", "nano", "--unet", "nano", "--out", tmp_path / "set")
    assert_refused(main("onnx", *arguments, monkeypatch=monkeypatch, capsys=capsys), f"{name} is a folder")


MOUNT = """
set -e
mount -t tmpfs -o size=$1 tmpfs $2
cp -r $3/. $2
if [ $4 = ro ]; then mount -o remount,ro $2; fi
folder=$2 out=$3
shift 4
set +e
"$@"
status=$?
rm -rf $out
cp -r $folder $out
exit $status
"""


def on_a_disk(size, mode, folder, *command):
    """Run a command on a copy of `folder` that is on a disk of its own; what it leaves is in `folder` afterwards."""
    disk = folder.with_name("disk")
    disk.mkdir()
    shell = ["unshare", "--map-root-user", "--mount", "sh", "-c", MOUNT, "sh", size, disk, folder, mode]
    words = [sys.executable, "-m", "dc_export.cli", *(str(word).replace("DISK", str(disk)) for word in command)]
    done = subprocess.run([*shell, *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr.strip()


def can_mount():
    if not shutil.which("unshare"):
        return False
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /tmp"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


needs_a_disk = pytest.mark.skipif(not can_mount(), reason="a disk of its own cannot be mounted here")
NANO = ("onnx", "--base", "nano", "--unet", "nano", "--out", "DISK")


@needs_a_disk
@pytest.mark.parametrize(("mode", "words"), [("rw", "The disk is full"), ("ro", "The disk is read-only")])
def test_an_export_to_a_full_or_read_only_disk_is_one_sentence_and_leaves_the_set(old, mode, words):
    before = contents(old)
    assert_refused(on_a_disk("160k", mode, old, *NANO), words)
    assert contents(old) == before


@needs_a_disk
def test_a_checkpoint_that_fills_the_disk_says_so(tmp_path):
    (tmp_path / "empty").mkdir()
    assert_refused(on_a_disk("1m", "rw", tmp_path / "empty", "checkpoint", "tiny", "DISK/tiny"), "The disk is full")


@needs_a_disk
def test_a_build_that_fills_the_disk_says_so(tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    from engine_helpers import make_onnx_set

    folder = make_onnx_set(tmp_path / "set")
    before = contents(folder)
    size = sum(map(len, before.values())) // 1024 + 60
    outcome = on_a_disk(f"{size}k", "rw", folder, "build", "DISK", "--flavour", "rtx")
    assert_refused(outcome, "Building clip_encoder", "filled the disk")
    assert "fewer frames" not in outcome[1]
    left = contents(folder)
    assert {name: text for name, text in left.items() if not name.endswith(".log")} == before
