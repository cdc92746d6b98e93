"""What a run will need, known before it: `dc-rt infer --dry-run` and `--fit`, against what a manifest says.

The manifest is that of engines of the real size, built by TensorRT-RTX for the shapes of film. Its files are as large
as it says and hold nothing: whoever hashed them would find them changed.
"""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest

from dc_rt.engine.manifest import GRAPHS, MANIFEST, Manifest
from dc_rt.engine.memory import OVERHEAD_BYTES, array_bytes, gpu_need, offloads_of
from dc_rt.gpu import ENVIRONMENT
from media_helpers import moving_gradient, write_clip

DATA = Path(__file__).parent / "data" / "film"
CARDS = {
    "8 GB": "NVIDIA GeForce RTX 4060, 8.9, 580.65, 8188, 7400",
    "12 GB": "NVIDIA GeForce RTX 3060, 8.6, 580.65, 12288, 11400",
    "16 GB": "NVIDIA GeForce RTX 5080, 12.0, 580.65, 16303, 15200",
    "24 GB": "NVIDIA GeForce RTX 4090, 8.9, 580.65, 24564, 23400",
}
SHAPES = [(576, 1024), (448, 1024), (768, 1024), (512, 1024), (512, 832), (384, 640), (1024, 576), (960, 960)]


def make_set(folder, streamed=False):
    """A set of the manifest in tests/data, whose files are holes."""
    folder.mkdir(parents=True)
    record = json.loads((DATA / MANIFEST).read_text())
    if streamed:
        record["builds"]["rtx"]["flags"].append("weight_streaming")
    (folder / MANIFEST).write_text(json.dumps(record))
    for variant in Manifest.read(folder).variants():
        for files in variant.graphs.values():
            for file in files:
                with (folder / file.name).open("wb") as stream:
                    stream.truncate(file.bytes)
    return folder


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("sets") / "film")


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("sets") / "streamed", streamed=True)


def film_clip(path, width=1920, height=1080, frames=6):
    return write_clip(path, moving_gradient(frames, height, width, seed=0), Fraction(24))


def infer(*arguments, card=None):
    command = [sys.executable, "-m", "dc_rt.cli", "infer", *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != ENVIRONMENT}
    if card:
        environment[ENVIRONMENT] = CARDS.get(card, card)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def need_of(built, size, cpu_offload):
    need = gpu_need(built, size[0], size[1], 110, cpu_offload)
    assert need is not None
    return need


def free_bytes(card):
    return int(CARDS[card].rpartition(",")[2]) << 20


def gigabytes(num_bytes):
    return f"{num_bytes / 1e9:.1f} GB"


@pytest.mark.parametrize("size", SHAPES, ids=lambda size: f"{size[1]}x{size[0]}")
def test_the_need_is_what_the_manifest_says_for_the_shape(film, size):
    built = Manifest.read(film).built("rtx")
    number = SHAPES.index(size)
    engines = built.builds["rtx"].engines
    need = need_of(built, size, "none")
    assert need.weights == sum(engine.weights_bytes for engine in engines.values())
    assert need.workspace == max(engine.shape_activation_bytes[number] for engine in engines.values())
    assert need.overhead == OVERHEAD_BYTES
    one = need_of(built, size, "model")
    assert (
        one.total
        == max(
            engines[graph].weights_bytes
            + engines[graph].shape_activation_bytes[number]
            + array_bytes(graph, size[0], size[1], 110, 1024)
            for graph in GRAPHS
        )
        + OVERHEAD_BYTES
    )
    streams = need_of(built, size, "sequential")
    assert streams.weights == 0
    assert streams.total <= one.total <= need.total


def test_a_ninth_shape_needs_nothing_that_is_known(film):
    assert gpu_need(Manifest.read(film).built("rtx"), 640, 1024, 110, "none") is None


def test_film_at_1024x576_needs_what_its_own_set_does(film):
    """The workspaces that TensorRT-RTX states for engines of 1024x576 alone: bench/results/engine_memory.md."""
    alone = {"clip_encoder": 0.09e9, "vae_encoder": 7.30e9, "denoiser": 7.82e9, "vae_decoder": 6.86e9}
    engines = Manifest.read(film).builds["rtx"].engines
    for graph in GRAPHS:
        assert engines[graph].shape_activation_bytes[0] == pytest.approx(alone[graph], rel=0.1)
    assert engines["denoiser"].shape_activation_bytes[0] <= 1.1 * alone["denoiser"]


def test_a_dry_run_says_all_and_writes_hashes_and_opens_nothing(film, tmp_path):
    clip = film_clip(tmp_path / "film.mp4")
    before = sorted(tmp_path.rglob("*"))
    began = time.perf_counter()
    done = infer(clip, "--engines", film, "--dry-run", "--save-folder", tmp_path / "out", card="24 GB")
    assert time.perf_counter() - began < 30  # to hash the set's gigabytes takes longer
    assert done.returncode == 0, done.stderr
    need = need_of(Manifest.read(film).built("rtx"), (576, 1024), "none")
    for words in (
        "1920x1080 -> 1024x576",
        str(film),
        "on TensorRT-RTX, profile film",
        "1 window of up to 110 frames, 5 evaluations in each",
        f"GPU      {gigabytes(need.total)}: weights {gigabytes(need.weights)}, workspace {gigabytes(need.workspace)}",
        f"{gigabytes(free_bytes('24 GB'))} are free on NVIDIA GeForce RTX 4090",
        "disk     up to",
        "time     not known",
    ):
        assert words in done.stdout, done.stdout
    assert re.search(r"looked at in \d+\.\d\d s; nothing was written", done.stdout)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_refuses_what_onnx_runtime_refuses(tmp_path):
    done = infer(film_clip(tmp_path / "film.mp4"), "--max-res", "320", "--dry-run", "--cpu-offload", "sequential")
    assert done.returncode == 1
    assert "Sequential offload is TensorRT's weight streaming" in done.stderr


def test_a_run_that_cannot_work_is_a_sentence_with_what_helps(film, streamed, tmp_path):
    clip = film_clip(tmp_path / "film.mp4")
    done = infer(clip, "--engines", film, "--dry-run", card="12 GB")
    assert done.returncode == 1
    assert re.fullmatch(
        r"The run needs [\d.]+ GB on the GPU, and 12\.0 GB are free on NVIDIA GeForce RTX 3060; "
        r"try --cpu-offload model, which needs [\d.]+ GB, or let --fit choose\.",
        done.stderr.strip(),
    ), done.stderr
    done = infer(clip, "--engines", film, "--dry-run", "--cpu-offload", "sequential", card="24 GB")
    assert done.returncode == 1
    assert "were not built for --cpu-offload sequential; make them with `make engines STREAMING=1`" in done.stderr
    assert infer(clip, "--engines", streamed, "--dry-run", "--cpu-offload", "sequential", card="24 GB").returncode == 0
    done = infer(clip, "--engines", film, "--dry-run", card="NVIDIA GeForce GT 1030, 8.6, 580.65, 2048, 1000")
    assert done.returncode == 1
    assert "LOW_MEMORY=1 STREAMING=1" in done.stderr


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("built_for", ["film", "streamed"])
def test_fit_takes_the_largest_size_and_the_least_offload_that_the_card_has_room_for(
    built_for, card, film, streamed, tmp_path
):
    folder = film if built_for == "film" else streamed
    built = Manifest.read(folder).built("rtx")
    clip = film_clip(tmp_path / "film.mp4")
    done = infer(clip, "--engines", folder, "--dry-run", "--fit", card=card)
    assert done.returncode == 0, done.stderr
    found = re.search(
        r"--fit takes \S+, --cpu-offload (\w+)(?:, --max-res (\d+))?: (\d+)x(\d+) in ([\d.]+ GB)", done.stdout
    )
    assert found, done.stdout
    offload, size = found[1], (int(found[4]), int(found[3]))
    need = need_of(built, size, offload)
    assert need.total <= free_bytes(card)
    assert found[5] == gigabytes(need.total)
    # No better one would have had room: the size as asked for with any offload, or this size with less of it.
    for other in offloads_of(built):
        if size != (576, 1024):
            assert need_of(built, (576, 1024), other).total > free_bytes(card)
    for less in offloads_of(built)[: offloads_of(built).index(offload)]:
        assert need_of(built, size, less).total > free_bytes(card)


def test_where_nothing_fits_the_least_is_named(film, tmp_path):
    clip = film_clip(tmp_path / "film.mp4")
    done = infer(clip, "--engines", film, "--dry-run", "--fit", card="NVIDIA GeForce GT 1030, 8.6, 580.65, 2048, 1000")
    assert done.returncode == 1
    assert re.match(r"Nothing fits into the 1\.0 GB that are free on NVIDIA GeForce GT 1030: the least is", done.stderr)
    assert "make engines LOW_MEMORY=1 STREAMING=1" in done.stderr


def test_all_eight_shapes_of_film_are_taken_and_a_ninth_is_refused_with_its_remedy(film, tmp_path):
    for width, height in ((1920, 1080), (2048, 858), (1440, 1080), (2048, 1080), (854, 480), (640, 360), (1080, 1920)):
        clip = film_clip(tmp_path / f"{width}.mp4", width, height, 2)
        done = infer(clip, "--engines", film, "--dry-run", card="24 GB")
        assert done.returncode == 0, done.stderr
    square = film_clip(tmp_path / "square.mp4", 1080, 1080, 2)
    done = infer(square, "--engines", film, "--dry-run", card="24 GB")
    assert done.returncode == 1
    assert "the video is 1024x1024; try --max-res 960" in done.stderr
    assert infer(square, "--engines", film, "--dry-run", "--max-res", 960, card="24 GB").returncode == 0
    ninth = film_clip(tmp_path / "ninth.mp4", 1200, 900, 2)
    assert infer(ninth, "--engines", film, "--dry-run", card="24 GB").returncode == 0  # 4:3 again
    tall = film_clip(tmp_path / "tall.mp4", 400, 1200, 2)
    done = infer(tall, "--engines", film, "--dry-run", card="24 GB")
    assert done.returncode == 1
    assert "run 1024x576, 1024x448, 1024x768" in done.stderr
    assert done.stderr.strip().endswith(".")


def test_without_engines_for_the_card_there_is_nothing_to_fit(tmp_path):
    clip = film_clip(tmp_path / "small.mp4", 128, 64, 3)
    done = infer(clip, "--dry-run", "--fit", card="none")
    assert done.returncode == 0, done.stderr
    assert "no engines for it; there is no GPU here" in done.stdout


def test_a_card_that_is_not_here_is_not_run_on(tmp_path):
    clip = film_clip(tmp_path / "small.mp4", 128, 64, 3)
    done = infer(clip, "--save-folder", tmp_path / "out", card="24 GB")
    assert done.returncode == 1
    assert "$DC_RT_GPU is of a card that is not here; unset it, or add --dry-run." in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_time_is_that_of_the_last_run(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    clip = film_clip(tmp_path / "small.mp4", 128, 64, 6)
    fast = ("--num-denoising-steps", 1, "--window-size", 4, "--overlap", 1, "--save-folder", tmp_path / "out")
    assert "time     not known" in infer(clip, *fast, "--dry-run", card="none").stdout
    done = infer(clip, *fast)
    assert done.returncode == 0, done.stderr
    seconds = json.loads((tmp_path / "out" / "small.json").read_text())["timings"]["seconds"]
    again = infer(clip, *fast, "--dry-run").stdout
    found = re.search(r"time     about (\d+) s, as fast as the set was on small at 128x64 ", again)
    assert found, again
    assert abs(int(found[1]) - seconds) <= 1.5
    # A longer one takes longer, and a file that holds no paces is none.
    for path in (tmp_path / "cache").rglob("pace.json"):
        path.write_text("[1, 2")
    assert "time     not known" in infer(clip, *fast, "--dry-run").stdout


def test_a_demonstration_says_so_and_real_weights_are_left_alone(film, tmp_path):
    clip = film_clip(tmp_path / "small.mp4", 128, 64, 2)
    fast = ("--num-denoising-steps", 1, "--window-size", 2, "--overlap", 1, "--save-folder", tmp_path / "out")
    done = infer(clip, *fast)
    assert len([line for line in done.stdout.splitlines() if "is a demonstration" in line]) == 1
    assert json.loads((tmp_path / "out" / "small.json").read_text())["demonstration"] is True


def test_only_the_bundled_weights_and_random_ones_are_demonstrations(film, tmp_path):
    from dc_rt.engine.demonstration import what_it_demonstrates
    from dc_rt.engine.discovery import BUNDLED

    bundled = Manifest.read(BUNDLED)
    renamed = dataclasses.replace(bundled, model=dataclasses.replace(bundled.model, name="mine", unet="/a/folder"))
    assert "is a demonstration" in what_it_demonstrates(renamed)
    random = Manifest.read(film)
    assert "random weights" in what_it_demonstrates(random)
    real = dataclasses.replace(random, model=dataclasses.replace(random.model, unet="tencent/DepthCrafter"))
    assert what_it_demonstrates(real) == ""
    assert what_it_demonstrates(dataclasses.replace(real, weights=None)) == ""


def test_a_set_of_another_model_is_never_taken_in_the_place_of_one(film, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(film, tmp_path / "engines" / "real", copy_function=_link)
    clip = film_clip(tmp_path / "ninth.mp4", 400, 1200, 2)
    done = infer(clip, "--dry-run", card="24 GB")
    assert done.returncode == 1
    assert "bundled" not in done.stdout + done.stderr
    assert "nano" not in done.stdout + done.stderr


def _link(source, target):
    Path(target).symlink_to(source)


def test_the_table_of_cards_is_made_from_the_manifests(film, streamed):
    command = [sys.executable, "-m", "bench.speed.memory_table", film, streamed]
    root = Path(__file__).parents[1]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=root, check=True, env=os.environ | {"PYTHONPATH": path}
    )
    heads, _, *lines = done.stdout.splitlines()
    assert heads == "| size | 8 GB | 12 GB | 16 GB | 24 GB |"
    assert [line.split("|")[1].strip() for line in lines] == [f"{width}x{height}" for height, width in SHAPES]
    need = need_of(Manifest.read(film).built("rtx"), (576, 1024), "none")
    assert f"| `none` {need.total / 1e9:.1f} |" in lines[0]
