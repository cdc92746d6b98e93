"""nano, the trained model that is bundled: its training, its checkpoint, its engines and what they are worth."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bench.accuracy.metrics import mean_metrics, score_clip
from dc_rt import DepthCrafter
from dc_rt.engine.discovery import BUNDLED
from dc_rt.media import read_frames
from dc_rt.noise import Noise
from depthcrafter import load_pipeline
from depthcrafter.nano.data import EncodedClips, coarse
from depthcrafter.nano.recipe import Recipe
from depthcrafter.nano.scenes import make_clip
from depthcrafter.nano.stage import Stage
from depthcrafter.nano.train import train
from depthcrafter.nano.train_unet import relative_error, windows

REPOSITORY = Path(__file__).parents[1]


def stage(folder: Path, steps: int = 400, fail_at: int | None = None) -> Stage:
    """A line, fitted to noisy points; may fail in the middle."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    taken = 0

    def loss(rng: np.random.Generator, generator: torch.Generator, progress: float) -> torch.Tensor:
        nonlocal taken
        taken += 1
        if taken == fail_at:
            raise KeyboardInterrupt
        x = torch.from_numpy(rng.normal(size=(8, 1))).float()
        y = 3 * x - 1 + 0.1 * torch.randn(x.shape, generator=generator)
        return (model(x) - y).square().mean()

    return Stage("line", model, loss, steps=steps, learning_rate=0.05, seed=0, folder=folder)


def test_an_interrupted_stage_ends_with_the_same_weights(tmp_path):
    straight = stage(tmp_path / "straight")
    (tmp_path / "straight").mkdir()
    straight.run()

    (tmp_path / "interrupted").mkdir()
    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path / "interrupted", fail_at=250).run()
    resumed = stage(tmp_path / "interrupted")
    taken = []
    resumed.validate = lambda: float(bool(taken.append(resumed.step)))  # type: ignore[func-returns-value]
    resumed.run()
    assert taken == [400]
    logs = [(tmp_path / name / "log.csv").read_text().splitlines() for name in ("straight", "interrupted")]
    steps, again = ([row.split(",")[1] for row in log] for log in logs)
    assert steps == again

    for ours, theirs in zip(resumed.model.parameters(), straight.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert straight.model.weight.item() == pytest.approx(3, abs=0.1)
    assert straight.model.bias.item() == pytest.approx(-1, abs=0.1)


TWO_PARTS = """
import os
import sys
from pathlib import Path
import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from depthcrafter.nano.stage import Stage

if sys.argv[2] == "together":
    dist.init_process_group("gloo")
torch.manual_seed(0)
model = nn.Linear(3, 1)

def loss(rng, generator, progress):
    size = int(rng.integers(1, 5))
    x = torch.randn((size, 3), generator=generator)
    with Path(sys.argv[1], "draws.txt").open("a") as file:
        file.write(f"{progress} {size} {x.sum()}\\n")
    return (model(x) - x.sum(1, keepdim=True)).square().mean()

Stage("line", model, loss, steps=200, learning_rate=0.05, seed=0, folder=Path(sys.argv[1]), parts=2).run()
if not dist.is_initialized() or dist.get_rank() == 0:
    torch.save(model.state_dict(), Path(sys.argv[1]) / "line.pt")
if dist.is_initialized():
    dist.barrier()
    dist.destroy_process_group()
# Its threads may abort the process while Python ends: seen on a busy machine, after all was done.
os._exit(0)
"""


@pytest.mark.soak
def test_two_processes_end_with_the_weights_of_one(tmp_path):
    script = tmp_path / "two_parts.py"
    script.write_text(TWO_PARTS)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    weights, logs, draws = [], [], []
    for name, command in (("alone", []), ("together", torchrun)):
        folder = tmp_path / name
        folder.mkdir()
        subprocess.run([sys.executable, *command, script, folder, name], check=True, timeout=120)
        weights.append(torch.load(folder / "line.pt"))
        with (folder / "log.csv").open() as file:
            logs.append([(row["step"], row["loss"]) for row in csv.DictReader(file)])
        draws.append(sorted((folder / "draws.txt").read_text().splitlines()))
    # Both parts of every step, neither twice, of one size, with contents of their own.
    assert draws[0] == draws[1]
    assert len(set(draws[0])) == 400
    assert len({line.rsplit(" ", 1)[0] for line in draws[0]}) == 200
    for key in weights[0]:
        assert torch.equal(weights[0][key], weights[1][key])
    assert logs[0] == logs[1]
    assert float(logs[0][-1][1]) < 0.1


def test_windows_of_a_pair_share_frames():
    index, way = windows(np.random.default_rng(0), _clips(5, 16), 4, 8, 2)
    assert index.shape == (4, 1)
    assert way.shape == (4, 8)
    for first, second in ((0, 1), (2, 3)):
        assert index[first] == index[second]
        assert (way[first, -2:] == way[second, :2]).all()
        assert not (way[first] == way[second]).all()


def test_the_relative_error_forgives_a_windows_scale_and_shift():
    disparity = torch.rand((2, 3, 4, 6), generator=torch.Generator().manual_seed(0))
    scale, shift = (torch.tensor(values).view(2, 1, 1, 1) for values in ([0.4, 0.7], [0.3, 0.1]))

    def latents(told: torch.Tensor) -> torch.Tensor:
        return torch.stack([coarse(told), *[torch.zeros_like(told)] * 3], dim=2)

    assert relative_error(latents(scale * disparity + shift), latents(disparity)) < 0.01
    assert relative_error(latents(disparity.flip(-1)), latents(disparity)) > 0.2
    wrong = disparity.clone()
    wrong[:, :, :2] += 0.3
    assert 0.02 < relative_error(latents(wrong), latents(disparity)) < 0.5


def test_a_recipe_whose_buckets_would_share_rooms_is_refused():
    with pytest.raises(ValueError, match="'wide' run into the seeds of 'long': at most 12000 fit"):
        Recipe(wide_clips=12_001)
    with pytest.raises(ValueError, match="'large' run into the seeds of 'wide': at most 50 fit"):
        Recipe(clips=1_950)


def _clips(count: int, num_frames: int) -> EncodedClips:
    latents = np.zeros((count, num_frames, 4, 2, 3), np.float16)
    return EncodedClips(latents, latents, np.zeros((count, num_frames, 8), np.float16))


@pytest.mark.soak
def test_training_writes_a_checkpoint_that_the_reference_loads(tmp_path):
    recipe = Recipe(
        vae_steps=2,
        vae_decoder_steps=2,
        image_encoder_steps=2,
        unet_steps=2,
        unet_own_steps=2,
        unet_last_steps=2,
        unet_wide_steps=2,
        unet_frames=4,
        pixel_clips=2,
        clips=2,
        large_clips=1,
        clip_frames=4,
        wide_clips=2,
        long_clips=2,
        large_wide_clips=1,
    )
    train(tmp_path, recipe, torch.device("cpu"))
    depth = load_pipeline(tmp_path, tmp_path / "unet")(make_clip(0, 2, 128, 128).frames, steps=1)
    assert depth.shape == (2, 128, 128)
    assert np.isfinite(depth).all()
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    stages = ["vae", "vae_decoder", "image_encoder", "unet", "unet_own", "unet_last", "unet_wide"]
    assert [row["stage"] for row in rows] == stages
    assert float(rows[-1]["validation"]) > 0
    assert (tmp_path / "curve.png").stat().st_size > 1000
    # Run again, all stages are done, and nothing is trained twice.
    train(tmp_path, recipe, torch.device("cpu"))
    with (tmp_path / "log.csv").open() as file:
        assert list(csv.DictReader(file)) == rows


def test_the_bundled_engines_are_those_of_the_bundled_checkpoint():
    frames = np.stack(list(read_frames(REPOSITORY / "examples" / "still.mp4", 128, 192)))[:10]
    model = DepthCrafter.load(BUNDLED)
    assert model.engines.manifest.model.name == "nano"
    options: dict[str, Any] = {"steps": 2, "window_size": 6, "overlap": 2}
    depth = np.stack(list(model(frames, noise=Noise(1), **options)))
    expected = load_pipeline("nano", "nano")(frames, noise=Noise(1), **options)
    assert np.abs(depth - expected).mean() <= 1e-5
    assert np.abs(depth - expected).max() <= 1e-3


def test_nano_sees_depth_in_scenes_that_it_was_not_trained_on():
    model = DepthCrafter.load(BUNDLED)
    scores = []
    for seed in range(6):
        clip = make_clip(seed, 6, 128, 192)
        depth = np.stack(list(model(clip.frames, noise=Noise(seed))))
        scores.append(score_clip(depth, clip.depth, 30.0))
    mean = mean_metrics(scores)
    assert mean["delta1"] > 0.85
    assert mean["abs_rel"] < 0.11


def test_what_is_bundled_is_small():
    assert sum(path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file()) <= 16e6
