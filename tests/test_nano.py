"""nano, the trained model that is bundled: its training, its checkpoint, its engines and what they are worth."""

import csv
import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dc_rt import DepthCrafter
from dc_rt.engine.discovery import BUNDLED
from dc_rt.media import read_frames
from dc_rt.noise import Noise
from depthcrafter import load_pipeline
from depthcrafter.nano.scenes import make_clip
from depthcrafter.nano.train import Recipe, Stage, train

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
    resumed.run()

    for ours, theirs in zip(resumed.model.parameters(), straight.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert straight.model.weight.item() == pytest.approx(3, abs=0.1)
    assert straight.model.bias.item() == pytest.approx(-1, abs=0.1)


def test_training_writes_a_checkpoint_that_the_reference_loads(tmp_path):
    recipe = Recipe(
        vae_steps=2,
        vae_decoder_steps=2,
        image_encoder_steps=2,
        unet_steps=2,
        unet_own_steps=2,
        unet_last_steps=2,
        unet_frames=4,
        pixel_clips=2,
        clips=2,
        large_clips=1,
        clip_frames=4,
    )
    train(tmp_path, recipe, torch.device("cpu"))
    depth = load_pipeline(tmp_path, tmp_path / "unet")(make_clip(0, 2, 128, 128).frames, steps=1)
    assert depth.shape == (2, 128, 128)
    assert np.isfinite(depth).all()
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    stages = ["vae", "vae_decoder", "image_encoder", "unet", "unet_own", "unet_last"]
    assert [row["stage"] for row in rows] == stages
    assert float(rows[-1]["validation"]) > 0
    assert (tmp_path / "curve.png").stat().st_size > 1000
    # Run again, all stages are done, and nothing is trained twice.
    train(tmp_path, dataclasses.replace(recipe), torch.device("cpu"))
    with (tmp_path / "log.csv").open() as file:
        assert list(csv.DictReader(file)) == rows


def test_the_bundled_engines_are_those_of_the_bundled_checkpoint():
    frames = np.stack(list(read_frames(REPOSITORY / "examples" / "still.mp4", 128, 192)))[:10]
    model = DepthCrafter.load(BUNDLED)
    assert model.engines.manifest.model.name == "nano"
    options = {"steps": 2, "window_size": 6, "overlap": 2}
    depth = np.stack(list(model(frames, noise=Noise(1), **options)))
    expected = load_pipeline("nano", "nano")(frames, noise=Noise(1), **options)
    assert np.abs(depth - expected).mean() <= 1e-5
    assert np.abs(depth - expected).max() <= 1e-3


def test_nano_sees_depth_in_scenes_that_it_was_not_trained_on():
    sys.path.insert(0, str(REPOSITORY / "bench"))
    from metrics import mean_metrics, score_clip

    model = DepthCrafter.load(BUNDLED)
    scores = []
    for seed in range(6):
        clip = make_clip(seed, 6, 128, 192)
        depth = np.stack(list(model(clip.frames, noise=Noise(seed))))
        scores.append(score_clip(depth, clip.depth, 30.0))
    mean = mean_metrics(scores)
    assert mean["delta1"] > 0.75
    assert mean["abs_rel"] < 0.15


def test_what_is_bundled_is_small():
    assert sum(path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file()) <= 16e6
