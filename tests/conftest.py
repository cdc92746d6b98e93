"""What most tests stand on: a random checkpoint, its reference and its engines. Made once a run, from scratch."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tests share the cores: PyTorch's threads that wait are to sleep. While they did not, two processes on two cores took
# up to four times as long for what compares with the reference (11.7 and 2.7 s, 19.7 and 9.0 s).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# How fast runs of tests are is nothing to whoever runs them.
os.environ["XDG_CACHE_HOME"] = str(Path(tempfile.gettempdir(), "dc-rt-tests-cache"))

import pytest

from dc_rt import DepthCrafter
from dc_rt.engine.discovery import BUNDLED
from dc_rt.lock import Held, take_lock
from raw_helpers import Kept, make_kept

if TYPE_CHECKING:
    from depthcrafter import DepthCrafterPipeline

# What these import is installed with the extra `export` alone. All other files are the runtime's, and run without it.
EXPORT_TESTS = (
    "test_attention.py",
    "test_bench.py",
    "test_build.py",
    "test_checkpoint.py",
    "test_evaluate.py",
    "test_export.py",
    "test_gpu_check.py",
    "test_gpu_steps.py",
    "test_half_encoder.py",
    "test_half_precision.py",
    "test_half_weights.py",
    "test_hub.py",
    "test_instance_norm.py",
    "test_limits.py",
    "test_made_from.py",
    "test_nano.py",
    "test_reference.py",
    "test_resize.py",
    "test_rewrite.py",
    "test_staging.py",
    "test_tensorrt.py",
    "test_torch_steps.py",
    "test_weights.py",
)
collect_ignore = [] if find_spec("torch") else list(EXPORT_TESTS)

# What `make fast` leaves out, whole files or single tests: it is to end in under a minute on two cores. A file that is
# not named is quick: `pytest --durations=20` says whether it is.
SLOW = (
    "test_batch.py",
    "test_cli.py",
    "test_corruption.py",
    "test_deliver.py",
    "test_forecast.py",
    "test_gpu_memory.py",
    "test_job.py",
    "test_layers.py",
    "test_lease.py",
    "test_lean.py",
    "test_library.py::test_the_doctor_prints_the_row_that_applies_and_the_one_command",
    "test_make.py",
    "test_manifest_fuzz.py",
    "test_pipeline.py",
    "test_pipes.py",
    "test_serve.py",
    "test_serve_parts.py",
    "test_serve_refusals.py",
    "test_shots.py",
    "test_streams.py",
    "test_side_by_side.py",
    "test_takeover.py",
    "test_targets.py",
    "test_terminal.py",
    "test_tiers.py",
    "test_cuts.py::test_cuts_of_real_and_rendered_clips_are_found_and_no_others",
    "test_calibrate.py::test_points_on_the_command_line_give_the_same_metres_at_the_sources_size",
    "test_backends.py::test_a_backend_of_another_package_runs_a_video",
    "test_backends.py::test_a_backend_that_is_built_in_is_nobody_elses",
    "test_from_the_original.py::test_an_option_of_the_original_is_one_sentence_with_its_counterpart",
    "test_discovery.py::test_every_video_of_a_batch_is_run_by_a_set_that_can",
    "test_media.py::test_file_cut_short_is_found_by_probing",
    "test_sequences.py::test_a_home_folder_is_found_in_every_path",
    "test_sequences.py::test_a_sequence_gives_the_bits_of_the_folder",
    "test_shown.py::test_a_constant_rate_stays_exactly_constant",
    "test_shown.py::test_lost_frames_are_counted_and_leave_the_others_where_they_are",
    "test_shown.py::test_results_are_shown_when_the_source_is",
    "test_shown.py::test_what_is_lost_does_not_depend_on_the_number_of_threads",
    "test_spool.py::test_a_spool_that_is_deleted_is_never_shared",
)
# What is quick in slow files.
QUICK = (
    "test_lean.py::test_importing_the_package_brings_in_nothing_heavy",
    "test_lean.py::test_nowhere_is_it_advised_to_install_by_name",
    "test_make.py::test_a_name_that_does_not_exist_is_refused_before_anything_is_made",
    "test_make.py::test_the_lowest_versions_are_those_of_the_ranges",
    "test_make.py::test_the_tested_versions_lie_in_the_ranges",
)


# Files that take long come first, so that both processes end at about the same time; before all others those that make
# what others wait for, `half_built` and `engines`, each in a process of its own.
FIRST = ("test_build.py", "test_export.py", "test_hub.py", "test_shots.py", "test_takeover.py", "test_cancel.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tests, and put files in order."""
    order = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(FIRST)))
    for item in items:
        test = f"{item.path.name}::{item.name.partition('[')[0]}"
        if (item.path.name in SLOW or test in SLOW) and test not in QUICK:
            item.add_marker("slow")


# A shell has what it starts in the background ignore Ctrl-C, and the processes that tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _need_pytorch() -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed: it comes with the extra export")


def _made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name`, made by the first of the processes that share the tests; the others wait for it."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # each has a folder of its own in that of the run
        root = root.parent
    while True:
        try:
            lock = take_lock(root / f"{name}.lock")
            break
        except Held:
            time.sleep(0.2)
    with lock:
        if not (root / f"{name}.done").exists():
            make(root / name)
            (root / f"{name}.done").touch()
    return root / name


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders (base, unet) of a tiny random checkpoint, other weights than the bundled engine set has. Shared."""
    _need_pytorch()
    from depthcrafter import make_checkpoint

    base = _made_once(tmp_path_factory, "checkpoint", lambda folder: make_checkpoint(folder, "tiny", seed=1))
    return base, base / "unet"


@pytest.fixture(scope="session")
def reference(checkpoint: tuple[Path, Path]) -> DepthCrafterPipeline:
    from depthcrafter import load_pipeline

    return load_pipeline(*checkpoint)


@pytest.fixture(scope="session")
def engines(checkpoint: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint's engine set, freshly exported. Shared: not to be changed."""
    from dc_export import export_onnx

    quiet: dict[str, Any] = {"report": lambda message: None}
    return _made_once(tmp_path_factory, "tiny", lambda folder: export_onnx(*checkpoint, folder, **quiet))


@pytest.fixture(scope="session")
def model(engines: Path) -> DepthCrafter:
    return DepthCrafter.load(engines)


@pytest.fixture(scope="session")
def bundled() -> DepthCrafter:
    """The engine set that users get."""
    return DepthCrafter.load(BUNDLED)


@pytest.fixture(scope="session")
def kept(bundled: DepthCrafter, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """A clip, and all results of a run that kept its raw depth. Shared: not to be changed."""
    return make_kept(bundled, tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="session")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model's graphs as TensorRT gets them: half precision, sliced. Shared: not to be changed."""
    _need_pytorch()
    from dc_export import export_onnx

    options: dict[str, Any] = {
        "target": "tensorrt",
        "profile": "512x256",
        "name": "nano",
        "report": lambda message: None,
    }
    return _made_once(tmp_path_factory, "half", lambda folder: export_onnx("nano", "nano", folder, **options))


@pytest.fixture(scope="session")
def half_built(half: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The same with TensorRT-RTX engines, built on the command line; and what that said. Likewise shared."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: it has wheels for few systems")

    def build(folder: Path) -> None:
        shutil.copytree(half, folder)
        command = [sys.executable, "-m", "dc_export.cli", "build", str(folder), "--flavour", "rtx"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        folder.with_suffix(".said").write_text(done.stdout)

    folder = _made_once(tmp_path_factory, "built", build)
    return folder, folder.with_suffix(".said").read_text()


@pytest.fixture(autouse=True)
def _away_from_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test in an empty folder, so that none finds ./engines or leaves files behind."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("DC_RT_ENGINES", raising=False)
