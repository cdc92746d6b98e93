"""The benchmark of `bench/evaluate.py`: its errors worked out by hand, and its commands on the original's layout."""

import csv
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.accuracy.datasets import DATASETS, find
from bench.accuracy.evaluate import main
from bench.accuracy.metrics import METRICS, fit_scale_shift, frame_metrics, resize_bilinear, score_clip
from bench.children import call_each
from media_helpers import decode, moving_gradient, write_clip, write_image

BENCH = Path(__file__).parents[1] / "bench"
PERFECT = dict.fromkeys(METRICS, 0.0) | {"delta1": 1.0, "delta2": 1.0, "delta3": 1.0}


def some_depth(frames=3, height=6, width=8, seed=0):
    """True depth between 1 and 5 metres."""
    return np.random.default_rng(seed).uniform(1, 5, (frames, height, width))


def disparity_of(depth):
    """A prediction that is exact up to scale and shift."""
    return 0.3 / depth + 0.2


# The errors of one frame.


def test_errors_of_a_frame_worked_out_by_hand():
    errors = frame_metrics(np.array([2.0, 4.0, 1.0, 3.0]), np.array([1.0, 4.0, 2.0, 2.0]))
    # Differences 1, 0, -1, 1; ratios 2, 1, 2, 1.5; logarithms of the ratios log 2, 0, -log 2, log 1.5.
    assert errors["abs_rel"] == pytest.approx((1 + 0 + 0.5 + 0.5) / 4)
    assert errors["sq_rel"] == pytest.approx((1 + 0 + 0.5 + 0.5) / 4)
    assert errors["rmse"] == pytest.approx(math.sqrt(3 / 4))
    squares = 2 * math.log(2) ** 2 + math.log(1.5) ** 2
    assert errors["rmse_log"] == pytest.approx(math.sqrt(squares / 4))
    assert errors["log10"] == pytest.approx((2 * math.log10(2) + math.log10(1.5)) / 4)
    assert errors["silog"] == pytest.approx(100 * math.sqrt(squares / 4 - (math.log(1.5) / 4) ** 2))
    # 1.25, 1.5625 and 1.953125.
    assert [errors[f"delta{n}"] for n in (1, 2, 3)] == [0.25, 0.5, 0.5]


def test_square_relative_error_weighs_by_the_true_depth():
    errors = frame_metrics(np.array([5.0, 5.0]), np.array([1.0, 4.0]))
    assert errors["sq_rel"] == pytest.approx((16 / 1 + 1 / 4) / 2)
    assert errors["abs_rel"] == pytest.approx((4 / 1 + 1 / 4) / 2)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_ratio_of_exactly_the_threshold_is_beyond_it(n):
    ratio = 1.25**n
    assert frame_metrics(np.array([ratio, 1.0]), np.array([1.0, ratio]))[f"delta{n}"] == 0
    assert frame_metrics(np.array([ratio - 1e-6, 1.0]), np.array([1.0, ratio - 1e-6]))[f"delta{n}"] == 1


@pytest.mark.parametrize("factor", [0.5, 1.1, 3.0])
def test_a_wrong_scale_gives_known_errors_and_no_scale_invariant_one(factor):
    truth = some_depth().ravel()
    errors = frame_metrics(factor * truth, truth)
    assert errors["abs_rel"] == pytest.approx(abs(factor - 1))
    assert errors["sq_rel"] == pytest.approx((factor - 1) ** 2 * truth.mean())
    assert errors["rmse"] == pytest.approx(abs(factor - 1) * math.sqrt((truth**2).mean()))
    assert errors["rmse_log"] == pytest.approx(abs(math.log(factor)))
    assert errors["log10"] == pytest.approx(abs(math.log10(factor)))
    assert errors["silog"] == pytest.approx(0, abs=1e-9)
    assert errors["delta1"] == (factor == 1.1)


# A clip: scale and shift, masks, frames.


@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (0.3, 0.2), (40, 7), (-0.5, 0.8)])
def test_an_affine_map_of_the_truth_is_perfect(scale, shift):
    depth = some_depth()
    assert score_clip(scale / depth + shift, depth, 10) == pytest.approx(PERFECT, abs=1e-5)
    assert score_clip(np.maximum(scale, 0.1) * depth + shift, depth, 10, "disp") == pytest.approx(PERFECT, abs=1e-5)


def test_disparity_is_not_aligned_as_depth_nor_depth_as_disparity():
    depth = some_depth()
    assert score_clip(disparity_of(depth), depth, 10, "disp")["abs_rel"] > 0.05
    assert score_clip(depth, depth, 10, "depth")["abs_rel"] > 0.05


def test_least_squares_worked_out_by_hand():
    scale, shift = fit_scale_shift(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 6.0]))
    # Deviations -1.5, -0.5, 0.5, 1.5 and -2, 0, -1, 3: 7 / 5; mean 3 at 2.5.
    assert (scale, shift) == pytest.approx((1.4, -0.5))


def test_a_clip_worked_out_by_hand():
    # Disparities 1, 0.5, 0.5, 1 have no slope over 1, 2, 3, 4: all are estimated as 0.75, which is 4/3 m.
    scores = score_clip(np.array([[[1.0, 2.0], [3.0, 4.0]]]), np.array([[[1.0, 2.0], [2.0, 1.0]]]), 10)
    assert scores["abs_rel"] == pytest.approx(1 / 3)
    assert scores["rmse"] == pytest.approx(math.sqrt((1 / 9 + 4 / 9 + 4 / 9 + 1 / 9) / 4))
    assert (scores["delta1"], scores["delta2"]) == (0, 1)
    assert scores["rmse_log"] == pytest.approx(math.sqrt((math.log(4 / 3) ** 2 + math.log(3 / 2) ** 2) / 2))


@pytest.mark.parametrize("size", [0.01, 0.05, 0.3])
def test_known_noise_gives_known_errors(size):
    # Noise that neither a scale nor a shift explains, so that the least squares are scale 1 and shift 0.
    prediction = np.array([[[0.5, 0.5, 1.0, 1.0]]])
    noise = size * np.array([[[1.0, -1.0, 1.0, -1.0]]])
    scores = score_clip(prediction, 1 / (prediction + noise), 100)
    # The estimate 1/p of 1/(p+n) is off by n/p of it.
    relative = (noise / prediction).ravel()
    assert scores["abs_rel"] == pytest.approx(1.5 * size, rel=1e-6)
    assert scores["rmse_log"] == pytest.approx(math.sqrt((np.log(1 + relative) ** 2).mean()), rel=1e-6)
    assert scores["rmse"] == pytest.approx(math.sqrt(np.mean((relative / (prediction + noise).ravel()) ** 2)), rel=1e-6)
    in_depth = score_clip(prediction, prediction + noise, 100, "disp")
    assert in_depth["rmse"] == pytest.approx(size)
    assert in_depth["abs_rel"] == pytest.approx((size / (prediction + noise)).mean())


def test_pixels_without_a_valid_depth_count_for_nothing():
    depth, noise = some_depth(), np.random.default_rng(1).uniform(0, 0.1, (3, 6, 8))
    prediction = disparity_of(depth) + noise
    left = prediction[:, :, :4], depth[:, :, :4]
    expected = score_clip(*left, 10)
    prediction[:, :, 4:] = 1e6
    for invalid in (0, -1, 1e-3, 10, 50, np.nan, np.inf, -np.inf):
        depth[:, :, 4:] = invalid
        assert score_clip(prediction, depth, 10) == pytest.approx(expected)
    depth[:, :, 4:] = 9.999
    assert score_clip(prediction, depth, 10) != pytest.approx(expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_limits_are_excluded_in_the_precision_of_the_truth(dtype):
    depth = np.array([[[1e-3, 10.0, 2.0, 4.0]]], dtype)
    assert score_clip(np.array([[[9.0, 9.0, 0.5, 0.25]]]), depth, 10) == pytest.approx(PERFECT, abs=1e-5)


def test_frames_without_a_valid_pixel_are_left_out():
    depth = some_depth()
    prediction = disparity_of(depth) + np.random.default_rng(1).uniform(0, 0.1, depth.shape)
    expected = score_clip(prediction, depth, 10)
    holes = np.insert(depth, [0, 2, 3], 0, axis=0)
    garbage = np.insert(prediction, [0, 2, 3], np.nan, axis=0)
    assert len(holes) == 6
    assert score_clip(garbage, holes, 10) == pytest.approx(expected)


def test_frames_count_the_same_however_many_pixels_are_valid():
    # Noise that neither a scale nor a shift explains, in the first frame alone; half of the second is not valid.
    prediction = np.array([[[0.5, 0.5, 1.0, 1.0]], [[0.5, 0.25, 0.5, 0.25]]])
    noise = np.array([[[0.06, -0.06, 0.06, -0.06]], [[0.0, 0.0, 0.0, 0.0]]])
    truth = 1 / (prediction + noise)
    truth[1, 0, 2:] = 0
    scores = score_clip(prediction, truth, 100)
    first = frame_metrics(1 / prediction[0].ravel(), truth[0].ravel())
    for name in METRICS:
        assert scores[name] == pytest.approx((first[name] + PERFECT[name]) / 2, rel=1e-6), name


def test_predictions_are_clipped_below():
    # -5 counts as 0.001, so that this is an affine map of 1, 0.001, 0.5.
    scores = score_clip(np.array([[[1.0, -5.0, 0.5]]]), np.array([[[1.0, 1000.0, 2.0]]]), 2000)
    assert scores == pytest.approx(PERFECT, abs=1e-2)


def test_aligned_predictions_are_clipped_below_and_depths_to_the_range():
    # The line through 1, 0.1, 0.1, 0.1 at 1, 2, 3, 4 is 0.325 - 0.27 * (x - 2.5): below 0 at 4, so 1000 m, so 20 m.
    values = np.array([[[1.0, 2.0, 3.0, 4.0]]])
    depth = np.array([[[1.0, 10.0, 10.0, 10.0]]])
    expected = frame_metrics(np.array([1 / 0.73, 1 / 0.46, 1 / 0.19, 20]), depth.ravel())
    assert score_clip(values, depth, 20) == pytest.approx(expected, rel=1e-6)
    # Likewise in depth: 3.25 - 2.7 * (x - 2.5), -0.8 at 4, so 1 mm.
    depth = np.array([[[10.0, 1.0, 1.0, 1.0]]])
    expected = frame_metrics(np.array([7.3, 4.6, 1.9, 0.001]), depth.ravel())
    assert score_clip(values, depth, 20, "disp") == pytest.approx(expected)


def test_a_prediction_that_is_the_same_everywhere_is_the_mean_disparity():
    depth = some_depth()
    scores = score_clip(np.full_like(depth, 0.5), depth, 10)
    estimate = 1 / (1 / depth).mean()
    assert scores["abs_rel"] == pytest.approx(np.mean(np.abs(estimate - depth) / depth), rel=1e-6)


def test_a_clip_that_cannot_be_scored_is_refused():
    depth = some_depth()
    with pytest.raises(ValueError, match="no frame"):
        score_clip(depth, np.zeros_like(depth), 10)
    with pytest.raises(ValueError, match="not finite"):
        score_clip(np.full_like(depth, np.nan), depth, 10)
    with pytest.raises(ValueError, match="2 frames were predicted of 3"):
        score_clip(depth[:2], depth, 10)


# Resolutions.


def test_resizing_worked_out_by_hand():
    assert resize_bilinear(np.array([[0.0, 1.0]]), 1, 4).tolist() == [[0, 0.25, 0.75, 1]]
    assert resize_bilinear(np.array([[0.0, 1.0, 2.0, 3.0]]), 1, 2).tolist() == [[0.5, 2.5]]
    # One of four, not the mean of four: nothing is smoothed.
    assert resize_bilinear(np.array([[0.0, 0, 5, 0, 0, 0]]), 1, 2).tolist() == [[0, 0]]


@pytest.mark.parametrize("size", [(5, 7), (12, 16), (23, 9), (3, 40), (1, 1)])
def test_resizing_agrees_with_another_bilinear(size):
    image = np.random.default_rng(0).uniform(0, 1, (6, 8))
    expected = torch.nn.functional.interpolate(torch.from_numpy(image)[None, None], size, mode="bilinear")[0, 0]
    np.testing.assert_allclose(resize_bilinear(image, *size), expected.numpy(), atol=1e-12)


def test_a_prediction_of_another_size_is_resized_to_the_truth():
    # Disparity that is a plane over the picture, sampled at the pixel centres of two sizes.
    def plane(height, width):
        y, x = (np.arange(height)[:, None] + 0.5) / height, (np.arange(width) + 0.5) / width
        return np.broadcast_to(0.2 + 0.3 * x + 0.4 * y, (2, height, width))

    truth = 1 / plane(12, 16)
    # Where centres lie beyond the outermost ones of the prediction, its edge is repeated: not a plane any more.
    truth[:, [0, -1]] = truth[:, :, [0, -1]] = 0
    assert score_clip(plane(6, 8), truth, 10) == pytest.approx(PERFECT, abs=1e-5)
    assert score_clip(plane(48, 33), truth, 10) == pytest.approx(PERFECT, abs=1e-5)


# `score`, on the original's layout.


def write_meta(path, names, dataset="sintel"):
    rows = [f"{dataset}/{name}_rgb_left.mp4,{dataset}/{name}_disparity.npz" for name in names]
    path.write_text("\n".join(["filepath_left,filepath_disparity", *rows]) + "\n")
    return path


@pytest.fixture
def scored(tmp_path):
    """A data set of three clips with noisy predictions: arguments of `score`, its folders and its JSON."""
    truth, predictions = tmp_path / "gt", tmp_path / "pred"
    (truth / "sintel").mkdir(parents=True)
    (predictions / "results_sintel/sintel").mkdir(parents=True)
    for seed, name in enumerate("abc"):
        depth = some_depth(seed=seed)
        noise = np.random.default_rng(seed).uniform(0, 0.1, depth.shape)
        np.savez(truth / f"sintel/{name}_disparity.npz", disparity=depth[:, None])
        np.savez(predictions / f"results_sintel/sintel/{name}_rgb_left.npz", depth=disparity_of(depth) + noise)
    meta = write_meta(tmp_path / "meta.csv", "abc")
    out = tmp_path / "scores.json"
    arguments = ["score", "--dataset", "sintel", "--meta", meta, "--pred-root", predictions, "--gt-root", truth]
    return [str(argument) for argument in (*arguments, "--json", out)], truth, predictions, out


def test_scores_are_those_of_the_clips_and_their_mean(scored, capsys):
    arguments, truth, predictions, out = scored
    assert main(arguments) == 0
    record = json.loads(out.read_text())
    assert [clip["filepath_disparity"] for clip in record["clips"]] == [
        f"sintel/{name}_disparity.npz" for name in "abc"
    ]
    for name, clip in zip("abc", record["clips"], strict=True):
        depth = np.load(truth / f"sintel/{name}_disparity.npz")["disparity"][:, 0]
        prediction = np.load(predictions / f"results_sintel/sintel/{name}_rgb_left.npz")["depth"]
        assert {metric: clip[metric] for metric in METRICS} == score_clip(prediction, depth, 70)
    for metric in METRICS:
        assert record["mean"][metric] == pytest.approx(sum(clip[metric] for clip in record["clips"]) / 3)
    # The table has the published figures beside it.
    assert record["published"] == {"abs_rel": 0.270, "delta1": 0.697}
    published = next(line for line in capsys.readouterr().out.splitlines() if "v1.0.1" in line)
    assert "0.270" in published
    assert "0.697" in published


def test_missing_and_broken_files_are_named_and_the_rest_is_scored(scored, capsys):
    arguments, truth, predictions, out = scored
    main(arguments)
    whole = json.loads(out.read_text())
    (predictions / "results_sintel/sintel/a_rgb_left.npz").unlink()
    (truth / "sintel/c_disparity.npz").write_bytes(b"PK\x03\x04 no more")
    capsys.readouterr()
    assert main(arguments) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert str(predictions / "results_sintel/sintel/a_rgb_left.npz") in errors[0]
    assert str(truth / "sintel/c_disparity.npz") in errors[1]
    record = json.loads(out.read_text())
    assert record["clips"] == [whole["clips"][1]]
    assert record["mean"] == {metric: whole["clips"][1][metric] for metric in METRICS}
    assert [clip["filepath_disparity"] for clip in record["missing"]] == [
        "sintel/a_disparity.npz",
        "sintel/c_disparity.npz",
    ]


def test_nothing_to_score_is_said(scored, capsys):
    arguments, _, predictions, out = scored
    for path in (predictions / "results_sintel/sintel").iterdir():
        path.unlink()
    assert main(arguments) == 1
    assert len(capsys.readouterr().err.splitlines()) == 3
    assert json.loads(out.read_text())["mean"] is None


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [("depth", (3, 6, 8), "holds depth, not disparity or arr_0"), ("disparity", (3, 6, 8), "not [T,1,H,W]")],
)
def test_a_truth_of_another_key_or_shape_is_named(scored, capsys, key, shape, message):
    arguments, truth, _, _ = scored
    np.savez(truth / "sintel/b_disparity.npz", **{key: np.ones(shape)}, allow_pickle=False)
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


def test_a_truth_without_a_name_is_read(scored):
    arguments, truth, _, out = scored
    main(arguments)
    expected = json.loads(out.read_text())
    path = truth / "sintel/a_disparity.npz"
    np.savez(path, np.load(path)["disparity"])
    assert main(arguments) == 0
    assert json.loads(out.read_text()) == expected


def test_length_depth_and_domain_are_options(scored):
    arguments, truth, predictions, out = scored
    depth = np.load(truth / "sintel/a_disparity.npz")["disparity"][:, 0]
    prediction = np.load(predictions / "results_sintel/sintel/a_rgb_left.npz")["depth"]
    for options, expected in [
        (["--seq-len", "2"], score_clip(prediction[:2], depth[:2], 70)),
        (["--max-depth", "3"], score_clip(prediction, depth, 3)),
        (["--domain", "depth"], score_clip(prediction, depth, 70)),
        (["--domain", "disp"], score_clip(prediction, depth, 70, "disp")),
    ]:
        assert main([*arguments, *options]) == 0
        clip = json.loads(out.read_text())["clips"][0]
        assert {metric: clip[metric] for metric in METRICS} == expected


def test_the_shorter_of_prediction_and_truth_is_scored(scored):
    arguments, truth, predictions, out = scored
    path = predictions / "results_sintel/sintel/a_rgb_left.npz"
    prediction = np.load(path)["depth"]
    depth = np.load(truth / "sintel/a_disparity.npz")["disparity"][:, 0]
    np.savez(path, depth=prediction[:2])
    assert main(arguments) == 0
    clip = json.loads(out.read_text())["clips"][0]
    assert clip["frames"] == 2
    assert clip["rmse"] == score_clip(prediction[:2], depth[:2], 70)["rmse"]


def test_processes_side_by_side_give_the_same_scores(scored):
    arguments, _, predictions, out = scored
    (predictions / "results_sintel/sintel/b_rgb_left.npz").unlink()
    assert main(arguments) == 1
    expected = out.read_bytes()
    out.unlink()
    run = subprocess.run(
        [sys.executable, BENCH / "evaluate.py", *arguments, "--workers", "2"], capture_output=True, text=True
    )
    assert run.returncode == 1
    assert "b_rgb_left.npz" in run.stderr
    assert "Traceback" not in run.stderr
    assert out.read_bytes() == expected


def test_processes_take_devices_in_turn_and_one_that_dies_is_told():
    outcomes = list(call_each(os.getenv, [("CUDA_VISIBLE_DEVICES",)] * 4, 2, ["3", "5"]))
    assert set(outcomes) <= {"3", "5"}
    assert len(outcomes) == 4
    assert all(isinstance(outcome, Exception) for outcome in call_each(os._exit, [(1,), (1,)], 2))


def test_a_meta_csv_that_is_none_is_refused_in_a_sentence(scored, tmp_path, capsys):
    arguments, *_ = scored
    for contents in (None, "", "filepath_left,other\na,b\n"):
        meta = tmp_path / "other.csv"
        meta.unlink(missing_ok=True)
        if contents is not None:
            meta.write_text(contents)
        assert main([str(meta) if argument.endswith("meta.csv") else argument for argument in arguments]) == 1
        (sentence,) = capsys.readouterr().err.splitlines()
        assert str(meta) in sentence


def test_the_protocol_of_each_data_set():
    protocol = {name: (d.preset, d.length, d.max_depth, d.overlap) for name, d in DATASETS.items()}
    assert protocol == {
        "sintel": ("sintel", 50, 70, 1),
        "scannet": ("scannet", 90, 10, 1),
        "KITTI": ("KITTI", 110, 80, 1),
        "bonn": ("bonn", 110, 10, 1),
        "NYUv2": ("NYUv2", 1, 10, 0),
        "scenes": ("open", 12, 30, 1),
    }
    for name, dataset in (("kitti", "KITTI"), ("nyu", "NYUv2"), ("nyuv2", "NYUv2")):
        assert find(name) is DATASETS[dataset]


def test_the_scenes_are_made_and_scored_without_a_download(tmp_path):
    extract = ["extract", "--dataset", "scenes", "--root", str(tmp_path), "--out", str(tmp_path), "--scenes", "400"]
    assert main(extract) == 0
    where = ["--dataset", "scenes", "--meta", str(tmp_path / "scenes.csv"), "--pred-root", str(tmp_path)]
    assert main(["infer", *where, "--video-root", str(tmp_path), "--num-denoising-steps", "1"]) == 0
    assert main(["score", *where, "--gt-root", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "results_scenes.json").read_text())
    assert record["clips"][0]["frames"] == 12
    assert record["mean"]["abs_rel"] < 0.2


# `extract`, from the published layouts.


def write_depth_image(path, depth):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, depth.astype(np.uint16), "png", "gray16be")


def write_colour_image(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, image, *(("png", "rgb24") if path.suffix == ".png" else ("mjpeg", "yuvj420p")))


def write_sintel_depth(path, depth):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = np.array([202021.25], "<f4").tobytes() + np.array(depth.shape[::-1], "<i4").tobytes()
    path.write_bytes(header + depth.astype("<f4").tobytes())


def plain(num_frames, height, width, step=2):
    """Frames of one grey each, `step` apart, which start over after 220 / step frames: they tell their number."""
    greys = (20 + step * np.arange(num_frames) % 220).astype(np.uint8)
    return np.broadcast_to(greys[:, None, None, None], (num_frames, height, width, 3))


def extracted(out, dataset, name, step=2):
    """Numbers of the clip's frames if they are `plain`, their shape, and the depth."""
    video = decode(out / f"{dataset}/{name}_rgb_left.mp4")
    numbers = np.round((video.mean(axis=(1, 2, 3)) - 19.5) / step).astype(int)  # FFmpeg rounds down
    with np.load(out / f"{dataset}/{name}_disparity.npz") as contents:
        assert contents.files == ["disparity"]
        return numbers.tolist(), video.shape[1:3], contents["disparity"]


def write_sintel(root, scenes, num_frames=3, height=64, width=128):
    depth = some_depth(num_frames, height, width)
    for seed, scene in enumerate(scenes):
        for i, frame in enumerate(moving_gradient(num_frames, height, width, seed)):
            write_colour_image(root / f"training/clean/{scene}/frame_{i + 1:04d}.png", frame)
            write_sintel_depth(root / f"training/depth/{scene}/frame_{i + 1:04d}.dpt", depth[i])
    return depth


def test_sintel_is_extracted(tmp_path):
    depth = write_sintel(tmp_path, ["alley_1", "cave_2"])
    out = tmp_path / "out"
    assert main(["extract", "--dataset", "sintel", "--root", str(tmp_path / "training/clean"), "--out", str(out)]) == 0
    _, size, truth = extracted(out, "sintel", "cave_2")
    assert size == (64, 128)
    assert truth.dtype == np.float32
    np.testing.assert_array_equal(truth, depth[:, None].astype(np.float32))
    video = decode(out / "sintel/cave_2_rgb_left.mp4").astype(int)
    assert np.abs(video - moving_gradient(3, 64, 128, 1)).mean() < 5
    with (out / "sintel.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"filepath_left": f"sintel/{name}_rgb_left.mp4", "filepath_disparity": f"sintel/{name}_disparity.npz"}
        for name in ("alley_1", "cave_2")
    ]


def test_scannet_is_extracted_every_third_frame_and_cropped(tmp_path):
    for i, frame in enumerate(plain(12, 48, 64, step=10)):
        write_colour_image(tmp_path / f"scans/scene0707_00/color/{i}.jpg", frame)
        write_depth_image(tmp_path / f"scans/scene0707_00/depth/{i}.png", np.arange(48 * 64).reshape(48, 64) + i)
    out = tmp_path / "out"
    assert main(["extract", "--dataset", "scannet", "--root", str(tmp_path / "scans"), "--out", str(out)]) == 0
    numbers, size, truth = extracted(out, "scannet", "scene0707_00", step=10)
    assert numbers == [0, 3, 6, 9]
    assert size == (32, 42)
    depth = np.arange(48 * 64).reshape(48, 64)[8:-8, 11:-11]
    np.testing.assert_allclose(truth[:, 0], [(depth + i) / 1000 for i in numbers], rtol=1e-6)


def test_kitti_is_extracted_where_there_is_depth(tmp_path):
    drive = "2011_09_26_drive_0002_sync"
    depth = np.full((33, 47), 512)
    depth[:5] = 0
    for i, frame in enumerate(plain(120, 33, 47)):
        write_colour_image(tmp_path / f"raw/2011_09_26/{drive}/image_02/data/{i:010d}.png", frame)
        if i >= 5:
            write_depth_image(tmp_path / f"val/{drive}/proj_depth/groundtruth/image_02/{i:010d}.png", depth + i)
    out = tmp_path / "out"
    arguments = ["extract", "--dataset", "KITTI", "--root", str(tmp_path / "raw"), "--out", str(out)]
    assert main(arguments) == 1  # the depth is elsewhere
    assert main([*arguments, "--depth-root", str(tmp_path / "val")]) == 0
    numbers, size, truth = extracted(out, "KITTI", drive)
    assert numbers == [i % 110 for i in range(5, 115)]
    assert size == (32, 46)
    assert truth.shape == (110, 1, 32, 46)
    np.testing.assert_array_equal(truth[0, 0, 5:], 517 / 256)


def test_bonn_is_extracted_from_its_thirty_first_frame_by_rank(tmp_path):
    scene = tmp_path / "rgbd_bonn_balloon2"
    for i, frame in enumerate(plain(145, 16, 32)):
        write_colour_image(scene / f"rgb/{1548266469 + i / 30:.5f}.png", frame)
        write_depth_image(scene / f"depth/{1548266469.01 + i / 30:.5f}.png", np.full((16, 32), 5000 + 10 * i))
    out = tmp_path / "out"
    arguments = ["extract", "--dataset", "bonn", "--root", str(tmp_path), "--out", str(out)]
    assert main([*arguments, "--scenes", "rgbd_bonn_balloon2"]) == 0
    numbers, _, truth = extracted(out, "bonn", "rgbd_bonn_balloon2")
    assert numbers == [i % 110 for i in range(30, 140)]
    np.testing.assert_allclose(truth[:, 0, 0, 0], 1 + np.arange(30, 140) / 500, rtol=1e-6)
    assert main([*arguments, "--scenes", "rgbd_bonn_nowhere"]) == 1


def test_nyu_is_extracted_from_its_list_with_the_filled_depth_and_cropped(tmp_path):
    folder = tmp_path / "test/kitchen_0004"
    write_colour_image(folder / "rgb_0001.png", moving_gradient(1, 480, 640)[0])
    ramp = np.arange(480)[:, None] * 10 + np.arange(640)
    write_depth_image(folder / "depth_0001.png", np.full((480, 640), 999))
    write_depth_image(folder / "filled_0001.png", ramp)
    names = " ".join(f"test/kitchen_0004/{kind}_0001.png" for kind in ("rgb", "depth", "filled"))
    (tmp_path / "filename_list_test.txt").write_text(names + "\n")
    out = tmp_path / "out"
    assert main(["extract", "--dataset", "NYUv2", "--root", str(tmp_path), "--out", str(out)]) == 0
    _, size, truth = extracted(out, "NYUv2", "test/kitchen_0004/rgb_0001")
    assert size == (426, 560)
    np.testing.assert_allclose(truth[0, 0], ramp[45:471, 41:601] / 1000, rtol=1e-6)


def test_a_scene_with_a_missing_or_wrong_file_is_named_and_the_rest_is_extracted(tmp_path, capsys):
    write_sintel(tmp_path, ["a", "b", "c", "d"])
    training = tmp_path / "training"
    (training / "depth/a/frame_0002.dpt").unlink()
    broken = training / "depth/c/frame_0003.dpt"
    broken.write_bytes(broken.read_bytes()[:-4])
    write_colour_image(training / "clean/d/frame_0002.png", moving_gradient(1, 32, 32)[0])
    out = tmp_path / "out"
    assert main(["extract", "--dataset", "sintel", "--root", str(training / "clean"), "--out", str(out)]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    for error, name in zip(errors, ("a/frame_0002.dpt", "c/frame_0003.dpt", "d/frame_0002.png"), strict=True):
        assert name in error
    assert sorted(path.name for path in (out / "sintel").iterdir()) == ["b_disparity.npz", "b_rgb_left.mp4"]
    assert (out / "sintel.csv").read_text().count("\n") == 2


def test_colours_are_not_taken_for_depth(tmp_path, capsys):
    for i, frame in enumerate(plain(4, 48, 64)):
        write_colour_image(tmp_path / f"scans/scene/color/{i}.jpg", frame)
        write_colour_image(tmp_path / f"scans/scene/depth/{i}.png", frame)
    arguments = ["extract", "--dataset", "scannet", "--root", str(tmp_path / "scans"), "--out", str(tmp_path)]
    assert main(arguments) == 1
    assert "16-bit" in capsys.readouterr().err


# All three, end to end.


def test_a_published_data_set_to_its_scores(tmp_path, capsys):
    write_sintel(tmp_path, ["a", "b", "c"])
    data, predictions, out = tmp_path / "data", tmp_path / "pred", tmp_path / "scores.json"
    common = ["--dataset", "sintel", "--meta", str(data / "sintel.csv")]
    clean = str(tmp_path / "training/clean")
    assert main(["extract", "--dataset", "sintel", "--root", clean, "--out", str(data)]) == 0
    infer = ["infer", *common, "--video-root", str(data), "--pred-root", str(predictions), "--seq-len", "2"]
    infer += ["--max-res", "128", "--num-denoising-steps", "1"]
    score = ["score", *common, "--gt-root", str(data), "--pred-root", str(predictions), "--json", str(out)]

    (data / "sintel/b_rgb_left.mp4").rename(tmp_path / "b.mp4")
    capsys.readouterr()
    assert main(infer) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert str(data / "sintel/b_rgb_left.mp4") in error
    assert main(score) == 1
    assert [clip["filepath_disparity"][7] for clip in json.loads(out.read_text())["clips"]] == ["a", "c"]

    # What is there is left as it is; the rest in processes of its own.
    (tmp_path / "b.mp4").rename(data / "sintel/b_rgb_left.mp4")
    path = predictions / "results_sintel/sintel/a_rgb_left.npz"
    before = path.stat().st_mtime_ns
    assert main([*infer, "--skip-existing", "--workers", "2", "--devices", "0,1"]) == 0
    assert path.stat().st_mtime_ns == before
    assert main(score) == 0
    record = json.loads(out.read_text())
    assert [clip["frames"] for clip in record["clips"]] == [2, 2, 2]
    for name, clip in zip("abc", record["clips"], strict=True):
        with np.load(predictions / f"results_sintel/sintel/{name}_rgb_left.npz") as contents:
            assert contents["depth"].shape == (2, 64, 128)
            depth = np.load(data / f"sintel/{name}_disparity.npz")["disparity"][:2, 0]
            assert clip["abs_rel"] == score_clip(contents["depth"], depth, 70)["abs_rel"]
    assert record["mean"]["abs_rel"] > 0.01  # a random checkpoint on random depth


FIVE = ["KITTI", "NYUv2", "bonn", "scannet", "sintel"]


def small_data(root, names):
    """Of each data set two frames of noise with a depth, where `extract` would put them."""
    for number, name in enumerate(names):
        write_clip(root / name / "a_rgb_left.mp4", moving_gradient(2, 64, 64, seed=number))
        np.savez(root / name / "a_disparity.npz", disparity=some_depth(2, 64, 64, seed=number)[:, None])
        (root / f"{name}.csv").write_text(
            f"filepath_left,filepath_disparity\n{name}/a_rgb_left.mp4,{name}/a_disparity.npz\n"
        )


def test_all_data_sets_are_predicted_and_scored_in_one_command_and_one_table(tmp_path, capsys):
    for name in FIVE:
        (tmp_path / "datasets" / name).mkdir(parents=True)
    small_data(tmp_path / "datasets", FIVE)
    roots = ["--meta-root", str(tmp_path / "datasets"), "--pred-root", str(tmp_path / "pred")]
    short = ["--max-res", "64", "--num-denoising-steps", "1", "--seq-len", "1", "--overlap", "0"]
    assert main(["--dataset", "all", *roots, *short]) == 0
    said = capsys.readouterr().out
    assert sorted(re.findall(r"^\| (\w+) \| 1 of 1 \|", said, re.MULTILINE)) == sorted(FIVE)
    assert "5 of 5 data sets" in said
    record = json.loads((tmp_path / "pred" / "results.json").read_text())
    assert sorted(record) == sorted(FIVE)
    for name in FIVE:
        assert record[name]["mean"]["abs_rel"] == record[name]["clips"][0]["abs_rel"]

    # What is missing is named with the command that makes it; one data set alone is evaluated likewise.
    (tmp_path / "datasets" / "bonn.csv").unlink()
    assert main(["--dataset", "all", *roots, *short, "--skip-existing", "--json", str(tmp_path / "all.json")]) == 1
    told = capsys.readouterr()
    assert "python bench/evaluate.py extract --dataset bonn" in told.err
    assert "4 of 5 data sets" in told.out
    assert "missing_because" in json.loads((tmp_path / "all.json").read_text())["bonn"]
    assert main(["--dataset", "sintel", *roots, *short]) == 0
    assert "1 of 1 data sets" in capsys.readouterr().out


def test_inference_is_at_the_size_length_and_overlap_of_the_data_set(tmp_path):
    folder = tmp_path / "NYUv2/test/kitchen_0004"
    folder.mkdir(parents=True)
    write_clip(folder / "rgb_0001_rgb_left.mp4", moving_gradient(2, 426, 560))
    meta = write_meta(tmp_path / "meta.csv", ["test/kitchen_0004/rgb_0001"], "NYUv2")
    infer = ["infer", "--dataset", "NYUv2", "--meta", str(meta), "--video-root", str(tmp_path)]
    assert main([*infer, "--pred-root", str(tmp_path / "pred"), "--num-denoising-steps", "1"]) == 0
    results = tmp_path / "pred/results_NYUv2/NYUv2/test/kitchen_0004"
    assert np.load(results / "rgb_0001_rgb_left.npz")["depth"].shape == (1, 448, 640)
    options = json.loads((results / "rgb_0001_rgb_left.json").read_text())["options"]
    assert (options["dataset"], options["process_length"], options["overlap"]) == ("NYUv2", 1, 0)


def test_predictions_are_where_score_looks_for_them_even_if_videos_are_named_otherwise(tmp_path):
    write_clip(tmp_path / "a.mp4", moving_gradient(1, 64, 64))
    meta = tmp_path / "meta.csv"
    meta.write_text("filepath_left,filepath_disparity\na.mp4,sintel/disparity/one.npz\n")
    infer = ["infer", "--dataset", "sintel", "--meta", str(meta), "--video-root", str(tmp_path)]
    infer += ["--pred-root", str(tmp_path / "pred"), "--max-res", "64", "--num-denoising-steps", "1"]
    assert main(infer) == 0
    assert (tmp_path / "pred/results_sintel/sintel/rgb_left/one.npz").is_file()


def test_options_of_the_originals_scripts_get_their_counterparts(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["infer", "--meta_path", "meta.csv", "--saved_root=pred", "--gpus", "0,1", "--dataset", "sintel"]
    assert main(words) == 2
    (sentence,) = capsys.readouterr().err.strip().splitlines()
    assert "--meta_path is `--meta`, --saved_root is `--pred-root`, --gpus is `--devices`" in sentence
