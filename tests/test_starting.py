"""That the commands start on every system, and say what is missing where something is."""

import ast
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dc_export.faults import missing_module, refused_by_disk
from dc_rt.installation import install_command

ROOT = Path(__file__).parents[1]
# Of the standard library, what Windows has not.
POSIX_ONLY = {
    "crypt",
    "fcntl",
    "grp",
    "nis",
    "ossaudiodev",
    "posix",
    "pty",
    "pwd",
    "resource",
    "spwd",
    "syslog",
    "termios",
    "tty",
}

WITHOUT = """
import sys
for module in {modules!r}:
    sys.modules[module] = None
sys.argv = ["dc-export", *sys.argv[1:]]
"""


def without(modules, code, *arguments):
    """Run Python code with arguments, where some modules are not installed."""
    script = WITHOUT.format(modules=set(modules)) + code
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


MAIN = "from dc_export.cli import main\nmain()"


def test_dc_export_starts_and_ends_where_there_is_no_module_resource():
    done = without({"resource"}, MAIN, "--help")
    assert done.returncode == 0
    assert "onnx" in done.stdout
    figures = without({"resource"}, "from dc_export.cli import _peak_memory\nprint(repr(_peak_memory()))")
    assert figures.stdout.strip() == "''"


@pytest.mark.parametrize("package", ["runtime/dc_rt", "export/dc_export", "depthcrafter"])
def test_no_module_imports_what_windows_has_not_before_it_knows_where_it_is(package):
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & POSIX_ONLY, path


ONNX = ("onnx", "--base", "nano", "--unet", "nano", "--out", "set")


@pytest.mark.parametrize(
    ("command", "module"),
    [
        (ONNX, "torch"),
        (ONNX, "onnx_ir"),
        (ONNX, "diffusers"),
        (("verify", "set"), "torch"),
        (("checkpoint", "tiny", "set"), "torch"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_dc_export_without_its_extra_says_how_to_install_it(command, module):
    pytest.importorskip("torch", reason="PyTorch is not installed: it comes with the extra export")
    done = without({module}, MAIN, *command)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith(f"dc-export needs {module}, which is not installed")
    assert install_command("export") in done.stderr
    assert not Path("set").exists()


def test_a_library_that_is_broken_is_told_with_its_reason():
    pytest.importorskip("torch", reason="PyTorch is not installed: it comes with the extra export")
    sentence = missing_module(ImportError("libcudart.so.13: cannot open shared object file\nand more", name="torch"))
    assert sentence.startswith("torch is installed and cannot be loaded (libcudart.so.13: cannot open")
    assert "\n" not in sentence
    assert missing_module(ImportError("cannot import name 'x' from 'dc_export.build'", name="dc_export.build")) is None


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "The disk is full"),
        (errno.EROFS, "The disk is read-only"),
        (errno.EACCES, "There is no permission"),
        (errno.ENAMETOOLONG, "A name is too long"),
        (errno.EEXIST, "A file is where a folder has to be"),
        (errno.ENOTDIR, "A file is where a folder has to be"),
        (errno.EIO, "The system refuses to read or write"),
    ],
)
def test_what_a_disk_refuses_is_a_sentence_with_the_file(number, words):
    sentence = refused_by_disk(OSError(number, os.strerror(number), "/there/set"))
    assert sentence.startswith(words)
    assert "/there/set" in sentence
    assert sentence.endswith(".")


def test_names_that_a_terminal_cannot_show_are_written_out(tmp_path):
    command = [sys.executable, "-m", "dc_export.cli", "build", tmp_path / "grün 深度"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("There is no engine set in")
    assert r"gr\xfcn" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_standard_output_that_is_full_is_one_sentence():
    with Path("/dev/full").open("w") as full:
        code = "from dc_export import cli\ncli.app = lambda: cli.console.print('said')\ncli.main()"
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Standard output cannot be written")
    assert len(done.stderr.strip().splitlines()) == 1
