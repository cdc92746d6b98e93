"""`dc-export build`: TensorRT engines from graphs. TensorRT-RTX builds without a GPU; nothing here runs engines."""

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dc_export import build as build_module
from dc_export import build_engines, tensorrt_only
from dc_export.build import PORTABLE, Settings, _memory, choose_flavour
from dc_export.models import find_origins
from dc_export.profiles import load_profile
from dc_export.targets import is_plain_best
from dc_rt import UserError
from dc_rt.engine.compatibility import is_target
from dc_rt.engine.discovery import BUNDLED
from dc_rt.engine.manifest import GRAPHS, File, Manifest, Range
from dc_rt.gpu import ENVIRONMENT, Card
from depthcrafter.source import DEFAULT_BASE

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: NVIDIA has wheels for few systems")

INPUTS = {
    "clip_encoder": {"frames": "n H W 3", "resize_rows": "224 H", "resize_cols": "224 W"},
    "vae_encoder": {"frames": "n H W 3", "noise": "n 3 H W"},
    "denoiser": {"noisy": "1 T 4 h w", "sigma": "", "image_latents": "1 T 4 h w", "embeddings": "1 T 64"},
    "vae_decoder": {"latents": "n 4 h w"},
}


def build(folder, **options):
    """Build RTX engines; the manifest, and the graphs that were built and not kept."""
    messages = []
    manifest = build_engines(folder, flavour="rtx", report=messages.append, **options)
    return manifest, [graph for graph in GRAPHS if any(f"{graph}: building" in message for message in messages)]


def write_graph(path, factor=1.0):
    """A graph with the real inputs and hardly anything in it: the sum of all that is in them, times `factor`."""
    inputs, nodes, sums = [], [], []
    for name, dims in INPUTS[path.stem].items():
        dtype = TensorProto.UINT8 if name == "frames" else TensorProto.FLOAT
        shape = [int(dim) if dim.isdigit() else dim for dim in dims.split()]
        inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        nodes.append(helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT))
        sums.append(f"{name}_float")
        if shape:
            nodes.append(helper.make_node("ReduceSum", sums[-1:], [f"{name}_sum"], keepdims=0))
            sums[-1] = f"{name}_sum"
    nodes += [helper.make_node("Sum", sums, ["total"]), helper.make_node("Mul", ["total", "factor"], ["result"])]
    output = helper.make_tensor_value_info("result", TensorProto.FLOAT, [])
    weights = [numpy_helper.from_array(np.float32(factor), "factor")]
    graph = helper.make_graph(nodes, path.stem, inputs, [output], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def record(folder, **changes):
    """Let the manifest know the graphs as they are now."""
    graphs = {graph: (File.of(folder / f"{graph}.onnx"),) for graph in GRAPHS}
    manifest = Manifest.read(folder if (folder / "manifest.json").exists() else BUNDLED)
    dataclasses.replace(manifest, graphs=graphs, **changes).write(folder)
    return folder


@pytest.fixture(scope="module")
def toy_graphs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "set"
    folder.mkdir()
    for graph in GRAPHS:
        write_graph(folder / f"{graph}.onnx")
    return record(folder, profile=load_profile("512x256"), target="tensorrt", low_memory=True)


@pytest.fixture(scope="module")
def toy_engines(toy_graphs, tmp_path_factory):
    folder = shutil.copytree(toy_graphs, tmp_path_factory.mktemp("built") / "set")
    build(folder, low_memory=True)
    return folder


@pytest.fixture
def graphs(toy_graphs, tmp_path):
    """A set without engines."""
    return shutil.copytree(toy_graphs, tmp_path / "set")


@pytest.fixture
def engines(toy_engines, tmp_path):
    """A set with engines."""
    return shutil.copytree(toy_engines, tmp_path / "set")


def dc_export(*arguments):
    command = [sys.executable, "-m", "dc_export.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def assert_one_sentence(message, pattern):
    assert re.search(pattern, message), message
    assert "\n" not in message
    assert message.endswith(".")


def test_all_four_graphs_of_a_model_in_half_precision_become_engines(half_built):
    folder, said = half_built
    manifest = Manifest.read(folder)
    built = manifest.built("rtx")
    built.check_contents(folder)
    assert [path.name for path in sorted(folder.glob("*.engine"))] == sorted(f"{graph}.rtx.engine" for graph in GRAPHS)
    assert not list(folder.glob("*.part"))
    for graph in GRAPHS:
        assert re.search(rf"^ +[\d.]+ s +\[\d/4\] {graph}: building with TensorRT-RTX", said, re.M)
        assert re.search(rf"{graph}: [\d.]+ MB in \d+ s; on the GPU it takes", said)


def test_the_manifest_tells_what_the_engines_are(half_built):
    folder, _ = half_built
    manifest = Manifest.read(folder)
    assert (manifest.precision, manifest.target, manifest.low_memory) == ("fp16", "tensorrt", False)
    build = manifest.builds["rtx"]
    assert build.version == trt.__version__
    assert build.compute_capabilities == ("8.0", "8.6", "8.9", "12.0+")
    assert build.platform.startswith(sys.platform)
    assert build.flags == ("tf32", "single_stream", "fixed_memory")
    assert build.profile == load_profile("512x256")
    for graph, engine in build.engines.items():
        weights = sum(file.bytes for file in manifest.graphs[graph])
        assert 0.5 * weights < engine.weights_bytes < 1.5 * weights
        assert engine.file.bytes > engine.weights_bytes
        assert engine.seconds > 0
        log = (folder / f"{graph}.rtx.log").read_text()
        assert f"Total Activation Memory: {engine.activation_bytes} bytes" in log
        assert engine.activation_bytes > 0
    # 110 frames of 32 channels in half precision, a quarter of a gigabyte: the window is in memory as a whole.
    assert build.engines["denoiser"].activation_bytes > 110 * 32 * 32 * 64 * 2


def test_building_again_builds_nothing(engines):
    before = {path.name: path.stat().st_mtime_ns for path in engines.iterdir()}
    manifest, built = build(engines)
    assert not built
    assert manifest == Manifest.read(engines)
    assert {path.name: path.stat().st_mtime_ns for path in engines.iterdir()} == before


def test_only_what_changed_is_built_again(engines):
    write_graph(engines / "vae_encoder.onnx", factor=2)
    record(engines)
    engine = engines / "vae_decoder.rtx.engine"
    engine.write_bytes(engine.read_bytes()[:-1])
    (engines / "denoiser.rtx.engine").unlink()
    manifest, built = build(engines)
    assert built == ["vae_encoder", "denoiser", "vae_decoder"]
    manifest.built("rtx").check_contents(engines)


@pytest.mark.parametrize(
    ("options", "flags", "profile"),
    [
        ({"weight_streaming": True, "workspace": 0.5}, ("weight_streaming", "workspace=0.5GB"), "512x256"),
        ({"profile": "bonn"}, (), "bonn"),
    ],
)
def test_other_options_make_other_engines(engines, options, flags, profile):
    before = Manifest.read(engines).builds["rtx"]
    manifest, built = build(engines, **options)
    assert built == list(GRAPHS)
    after = manifest.builds["rtx"]
    assert (after.flags, after.profile) == (before.flags + flags, load_profile(profile))
    assert not {engine.key for engine in after.engines.values()} & {engine.key for engine in before.engines.values()}
    manifest.built("rtx").check_contents(engines)


def test_memory_is_laid_out_for_one_size_only_where_the_profile_has_but_one():
    kinds = {
        name: Settings("rtx", "1.7.1.116", "linux-x86_64", (), load_profile(name), None, False).flags
        for name in ("1024x576", "any")
    }
    assert kinds == {"1024x576": ("tf32", "single_stream", "fixed_memory"), "any": ("tf32", "single_stream")}


def test_all_that_an_engine_is_made_from_and_with_is_in_its_key():
    files = (File("denoiser.onnx", 10, "a" * 64), File("denoiser.onnx.data", 20, "b" * 64))
    settings = Settings("rtx", "1.7.1.116", "linux-x86_64", ("8.0", "12.0+"), load_profile("512x256"), None, False)
    others: dict[str, Any] = {
        "flavour": "tensorrt",
        "version": "1.7.1.117",
        "platform": "win32-amd64",
        "compute_capabilities": ("7.5",),
        "profile": dataclasses.replace(settings.profile, frames=Range(1, 60, 110)),
        "workspace": 1.0,
        "weight_streaming": True,
        "portable": True,
        "this_gpu": True,
    }
    assert set(others) == {field.name for field in dataclasses.fields(settings)}
    keys = [dataclasses.replace(settings, **{name: value}).key(files) for name, value in others.items()]
    keys += [settings.key(files), settings.key(files[:1])]
    keys += [settings.key((files[0], dataclasses.replace(files[1], sha256="c" * 64)))]
    assert len(set(keys)) == len(keys)
    assert settings.key(files) == dataclasses.replace(settings).key(tuple(dataclasses.replace(file) for file in files))


def start(folder, *options):
    command = [sys.executable, "-m", "dc_export.cli", "build", str(folder), "--flavour", "rtx", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_builder(process, graph):
    """Process id of the child that builds `graph`, once it does."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None:
        for child in children.read_text().split():
            if f"{graph}.rtx.engine.part".encode() in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
        time.sleep(0.005)
    raise AssertionError(process.communicate())


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds a child process through /proc")


@needs_proc
@pytest.mark.parametrize(
    ("number", "message"),
    [
        (
            signal.SIGKILL,
            "Building vae_encoder with TensorRT-RTX .* was killed, as a system does when its memory runs out",
        ),
        (signal.SIGSEGV, "Building vae_encoder with TensorRT-RTX .* died of SIGSEGV"),
    ],
)
def test_a_builder_that_dies_is_reported(graphs, number, message):
    process = start(graphs)
    os.kill(wait_for_builder(process, "vae_encoder"), number)
    said, error = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "[1/4] clip_encoder: 0." in said
    assert_one_sentence(error.strip(), f"{message}.*its log is .*vae_encoder.rtx.log: .*--profile")
    assert (graphs / "vae_encoder.rtx.log").exists()
    assert not list(graphs.glob("*.part"))
    # What was built before is known, and is not built again.
    assert list(Manifest.read(graphs).builds["rtx"].engines) == ["clip_encoder"]
    _, built = build(graphs)
    assert built == list(GRAPHS)[1:]


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_build_leaves_no_builder_behind_and_goes_on(graphs, number):
    process = start(graphs)
    child = wait_for_builder(process, "vae_encoder")
    process.send_signal(number)
    process.communicate(timeout=180)
    assert process.returncode not in (0, None)
    deadline = time.monotonic() + 120
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    manifest, built = build(graphs)
    assert built == list(GRAPHS)[1:]
    manifest.built("rtx").check_contents(graphs)
    assert not list(graphs.glob("*.part"))


def test_a_graph_that_is_none_is_reported_with_what_the_parser_said(graphs):
    (graphs / "clip_encoder.onnx").write_bytes(b"not a graph")
    record(graphs)
    done = dc_export("build", graphs, "--flavour", "rtx")
    assert done.returncode == 1
    assert_one_sentence(
        done.stderr.strip(), r"Building clip_encoder .* failed \(.*[Ff]ailed to parse.*clip_encoder.rtx.log"
    )
    assert "parse" in (graphs / "clip_encoder.rtx.log").read_text()
    assert not Manifest.read(graphs).builds


def test_a_graph_that_tensorrt_has_no_kernels_for_is_to_be_exported_for_it(graphs):
    """Attention in float32, as exported for ONNX Runtime."""
    shape = ["n", 2, "H", 32]
    query, key, value, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "qkvo")
    graph = helper.make_graph([helper.make_node("Attention", ["q", "k", "v"], ["o"])], "g", [query, key, value], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    onnx.save(model, graphs / "clip_encoder.onnx")
    record(graphs, target="onnx")
    with pytest.raises(UserError) as error:
        build(graphs)
    assert_one_sentence(str(error.value), r"failed \(.+\).*clip_encoder.rtx.log: .*dc-export onnx --target tensorrt")


def test_a_tensor_that_is_too_large_is_found_before_anything_is_built(half, tmp_path):
    folder = shutil.copytree(half, tmp_path / "set")
    with pytest.raises(UserError, match=r"node .* of vae_encoder.onnx .* 2\^31"):
        build(folder, profile="large")
    assert not list(folder.glob("*.engine"))


def test_changed_graphs_are_not_built(graphs):
    write_graph(graphs / "denoiser.onnx", factor=3)
    with pytest.raises(UserError, match=r"denoiser\.onnx was changed"):
        build(graphs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--flavour", "trt"), "auto, tensorrt, rtx"),
        (("--profile", "8k"), "1024x576"),
        (("--workspace", "0"), "above 0"),
        (("--workspace", "nan"), "above 0"),
        (("--low-memory",), "dc-export onnx --target tensorrt --low-memory"),
    ],
)
def test_an_impossible_option_is_one_sentence(graphs, options, message):
    record(graphs, low_memory=False)
    done = dc_export("build", graphs, *options)
    assert done.returncode == 1
    assert_one_sentence(done.stderr.strip(), message)
    assert not list(graphs.glob("*.log"))


@pytest.mark.skipif(bool(find_spec("tensorrt")), reason="TensorRT is installed")
def test_a_library_that_is_not_installed_is_named_with_the_command_that_installs_it(graphs, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, "NVIDIA H100, 9.0, 580.65, 81559, 80000")
    with pytest.raises(UserError) as error:
        build_engines(graphs)
    assert_one_sentence(str(error.value), r"TensorRT is not installed.*data centres.*pip install .*\[tensorrt\]'")
    monkeypatch.setenv(ENVIRONMENT, "none")
    with pytest.raises(UserError) as error:
        build_engines(graphs, flavour="tensorrt")
    assert_one_sentence(str(error.value), r"there is none here; check it with `nvidia-smi`")
    said: list[str] = []
    assert choose_flavour("auto", report=said.append) == ("rtx", ("8.0", "8.6", "8.9", "12.0+"))
    assert said == [
        "TensorRT-RTX for CUDA 13 (tensorrt-rtx-cu13), as it builds without a GPU, for GeForce and RTX cards"
    ]


def test_engines_for_the_shapes_of_film_have_a_profile_for_each_and_their_weights_once(graphs):
    one, _ = build(graphs, profile="1024x576")
    one_weights = one.builds["rtx"].engines["denoiser"].weights_bytes
    manifest, built = build(graphs, profile="film")
    assert built == list(GRAPHS)
    assert Manifest.read(graphs) == manifest
    profile = manifest.builds["rtx"].profile
    assert [str(shape) for shape in profile.shapes] == [
        *("1024x576", "1024x448", "1024x768", "1024x512", "832x512", "640x384", "576x1024", "960x960")
    ]
    assert profile.shape_of(960, 960) == 7
    assert "run 1024x576, 1024x448" in profile.misfit(640, 1024)
    assert "fixed_memory" in manifest.builds["rtx"].flags
    for graph in GRAPHS:
        engine = manifest.builds["rtx"].engines[graph]
        assert len(engine.shape_activation_bytes) == 8
        assert engine.activation_bytes == max(engine.shape_activation_bytes)
        log = (graphs / f"{graph}.rtx.log").read_text()
        assert log.count("Total Activation Memory") == 8
    assert manifest.builds["rtx"].engines["denoiser"].weights_bytes == one_weights


def test_memory_that_is_not_told_for_each_shape_is_the_largest_of_all(tmp_path):
    log = tmp_path / "denoiser.log"
    log.write_text("[INFO] Total Activation Memory: 5 bytes\n[INFO] Total Activation Memory: 7 bytes\n")
    assert _memory(log, 2) == (0, (5, 7))
    assert _memory(log, 3) == (0, (7, 7, 7))
    log.write_text("")
    assert _memory(log, 3) == (0, ())


def test_the_timing_cache_is_read_written_and_done_without(tmp_path, caplog):
    """On TensorRT-RTX, whose calls are the same, and whose cache stays empty."""
    config = trt.Builder(trt.Logger(trt.Logger.ERROR)).create_builder_config()
    path = tmp_path / "timing.cache"
    tensorrt_only.read_timing_cache(config, path)
    tensorrt_only.write_timing_cache(config, path)
    written = path.read_bytes()
    assert written.startswith(b"ptrtd")  # as TensorRT marks them
    tensorrt_only.read_timing_cache(config, path)
    path.write_bytes(b"no cache")
    tensorrt_only.read_timing_cache(config, path)
    tensorrt_only.write_timing_cache(config, path)
    assert path.read_bytes() == written
    tensorrt_only.write_timing_cache(config, tmp_path / "no folder" / "timing.cache")
    assert "cannot be kept" in caplog.text
    assert [each.name for each in tmp_path.iterdir() if each.name != "cwd"] == ["timing.cache"]


def test_portable_engines_are_asked_for_by_tensorrts_own_name():
    class Config:
        hardware_compatibility_level: Any = None

    config = Config()
    tensorrt_only.make_portable(trt, config)  # type: ignore[arg-type]  # what is not called is left out
    assert config.hardware_compatibility_level == trt.HardwareCompatibilityLevel.AMPERE_PLUS
    built_for = Settings(
        "tensorrt", "11.4.0.106", "linux-x86_64", PORTABLE, load_profile("film"), None, False, portable=True
    )
    assert "portable" in built_for.flags
    assert built_for.key(()) != dataclasses.replace(built_for, portable=False).key(())


@pytest.mark.parametrize(("capability", "runs"), [((8, 0), True), ((9, 0), True), ((12, 0), True), ((7, 5), False)])
def test_portable_engines_run_from_ampere_on(capability, runs):
    assert is_target(capability, PORTABLE) == runs


def test_for_tensorrt_rtx_portable_changes_nothing(graphs):
    build(graphs)
    _, built = build(graphs, portable=True)
    assert built == []


MAKEFILE = Path(__file__).parents[1] / "Makefile"


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
@pytest.mark.parametrize(
    ("variables", "command"),
    [
        ((), "engines depthcrafter --profile film --flavour auto"),
        (("MODEL=nano", "PROFILE=512x256"), "engines nano --profile 512x256 --flavour auto"),
        (
            ("MODEL=random-full", "PROFILE=512x256", "LOW_MEMORY=1", "STREAMING=1", "PORTABLE=1", "FLAVOUR=rtx"),
            "engines random-full --profile 512x256 --flavour rtx --low-memory --weight-streaming --portable",
        ),
        (("MODEL=someone/unet",), "engines someone/unet --profile film"),
    ],
)
def test_make_engines_makes_the_named_model_and_installs_its_library_in_both_environments(variables, command):
    dry_run = ["make", "--dry-run", "--always-make", "-C", str(MAKEFILE.parent), "engines", *variables]
    said = subprocess.run(dry_run, capture_output=True, text=True, check=True).stdout
    said = re.sub(r"[\\\s]+", " ", said)
    assert f"/dc-export {command}" in said
    for environment in (".venv-dev", ".venv"):
        assert f" {environment}/bin/python tools/gpu_library.py --flavour " in said


def test_engines_are_for_the_gpu_that_is_here_unless_they_are_to_be_portable(monkeypatch):
    """Of TensorRT-RTX: a card is there, as far as planning goes, and CUDA finds the same."""
    monkeypatch.setenv(ENVIRONMENT, "NVIDIA GeForce RTX 4090, 8.9, 580.65, 24564, 23400")
    everywhere = ("8.0", "8.6", "8.9", "12.0+")
    assert choose_flavour("rtx", report=lambda _: None) == ("rtx", everywhere)
    with pytest.raises(UserError, match="CUDA finds none here; check it with `nvidia-smi`"):
        choose_flavour("rtx", this_gpu=True)
    monkeypatch.setattr(build_module, "find_gpu", lambda: SimpleNamespace(capability=(8, 9)))
    assert choose_flavour("rtx", report=lambda _: None) == ("rtx", ("8.9",))
    assert choose_flavour("rtx", portable=True, report=lambda _: None) == ("rtx", everywhere)
    with pytest.raises(UserError, match="give one of them"):
        choose_flavour("rtx", portable=True, this_gpu=True)
    # A card that is none of its targets: by name it can be tried.
    monkeypatch.setenv(ENVIRONMENT, "NVIDIA H100 80GB HBM3, 9.0, 580.65, 81559, 80000")
    monkeypatch.setattr(build_module, "find_gpu", lambda: SimpleNamespace(capability=(9, 0)))
    assert choose_flavour("rtx", this_gpu=True) == ("rtx", ("9.0",))


@pytest.mark.parametrize(("megabytes", "expected"), [(24564, False), (46068, True), (81559, True)])
def test_graphs_without_slices_are_for_cards_with_memory_for_them(megabytes, expected):
    card = Card("a card", (8, 9), "580.65", megabytes << 20, megabytes << 20)
    assert is_plain_best(card, low_memory=False, portable=False) == expected
    assert not is_plain_best(card, low_memory=True, portable=False)
    assert not is_plain_best(card, low_memory=False, portable=True)
    assert not is_plain_best(None, low_memory=False, portable=False)


def test_dc_export_engines_says_at_once_what_it_cannot_make():
    def engines(*words):
        command = [sys.executable, "-m", "dc_export.cli", "engines", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = engines("typo")
    assert done.returncode == 1
    assert "There is no model 'typo'; choose one of depthcrafter, nano" in done.stderr
    done = engines("nano", "--profile", "typo")
    assert done.returncode == 1
    assert "There is no profile 'typo'; choose one of any, film" in done.stderr
    done = engines("nano", "--flavour", "typo")
    assert done.returncode == 1
    assert "There is no flavour 'typo'" in done.stderr


@pytest.mark.parametrize(
    ("model", "base", "origins"),
    [
        (
            "depthcrafter",
            None,
            ("stabilityai/stable-video-diffusion-img2vid-xt", "tencent/DepthCrafter", "depthcrafter"),
        ),
        ("nano", "mine/base", ("mine/base", "nano", "nano")),
        ("someone/unet", None, (DEFAULT_BASE, "someone/unet", None)),
        ("random:tiny:3", "random:tiny", ("random:tiny", "random:tiny:3", None)),
    ],
)
def test_a_model_is_a_name_a_folder_or_a_hub_id(model, base, origins):
    found = find_origins(model, base)
    assert (found.base, found.unet, found.name) == origins


def test_a_folder_of_base_and_unet_is_both(tmp_path):
    for part in ("vae", "unet"):
        (tmp_path / "mine" / part).mkdir(parents=True)
    found = find_origins(str(tmp_path / "mine"))
    assert (found.base, found.unet, found.name) == (str(tmp_path / "mine"), str(tmp_path / "mine" / "unet"), "mine")
    assert find_origins(str(tmp_path / "mine" / "unet")).base == DEFAULT_BASE


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
def test_make_engines_knows_its_models():
    dry_run = ["make", "--dry-run", "-C", str(MAKEFILE.parent), "engines", "MODEL=huge"]
    done = subprocess.run(dry_run, capture_output=True, text=True, check=False)
    assert done.returncode
    assert "choose one of depthcrafter nano random-full random-tiny" in done.stderr
