"""The benchmark of DepthCrafter: five data sets, from their published files to the table of the paper.

    python bench/evaluate.py extract --dataset sintel --root training/clean --out datasets
    python bench/evaluate.py infer --dataset sintel --meta datasets/sintel.csv --video-root datasets --pred-root out
    python bench/evaluate.py score --dataset sintel --meta datasets/sintel.csv --gt-root datasets --pred-root out

A meta CSV has the columns `filepath_left` and `filepath_disparity`, relative to the roots. The prediction of a clip is
`PRED_ROOT/results_DATASET/` and its `filepath_disparity` with `disparity` replaced by `rgb_left`. What is missing or
wrong is named, the rest goes on, and the exit status is 1 at the end. See metrics.py for the protocol.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dc_rt import DepthCrafter, UserError
from dc_rt.engine import backend_names
from dc_rt.engine.discovery import Wanted, choose, find_candidates
from dc_rt.job import Options, plan_job, run_job
from dc_rt.media.sizes import DATASET_SIZES
from extract import LAYOUTS, ROOT_HELP, extract_scene, find_scenes
from metrics import DOMAINS, METRICS, Domain, mean_metrics, score_clip

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Benchmark:
    """A data set's part of the protocol."""

    preset: str  # of the size that it is processed at: see dc_rt.media.DATASET_SIZES
    seq_len: int
    max_depth: float
    overlap: int = 1
    published: tuple[float, float] | None = None  # AbsRel and delta1 of DepthCrafter v1.0.1


BENCHMARKS = {
    "sintel": Benchmark("sintel", 50, 70, published=(0.270, 0.697)),
    "scannet": Benchmark("scannet", 90, 10, published=(0.123, 0.856)),
    "kitti": Benchmark("KITTI", 110, 80, published=(0.104, 0.896)),
    "bonn": Benchmark("bonn", 110, 10, published=(0.071, 0.972)),
    "nyuv2": Benchmark("NYUv2", 1, 10, overlap=0),
}
BENCHMARKS["nyu"] = BENCHMARKS["nyuv2"]  # as the original's evaluation calls it

TITLES = ("AbsRel", "SqRel", "RMSE", "RMSE log", "log10", "SILog", "d1", "d2", "d3")


@dataclass(frozen=True)
class Clip:
    """A line of the meta CSV, as it stands there."""

    left: str
    disparity: str

    def prediction(self, pred_root: Path, dataset: str) -> Path:
        """Where the prediction lies."""
        return pred_root / f"results_{dataset}" / self.disparity.replace("disparity", "rgb_left")


def read_meta(path: Path) -> list[Clip]:
    """The clips of a meta CSV; raises `UserError` if it cannot be read or names none."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}); check --meta.") from error
    if not rows or not all(row.get("filepath_left") and row.get("filepath_disparity") for row in rows):
        raise UserError(f"{path} must name clips in the columns filepath_left and filepath_disparity; check --meta.")
    return [Clip(row["filepath_left"], row["filepath_disparity"]) for row in rows]


def load_truth(path: Path) -> NDArray[Any]:
    """True depth, [T,H,W], of an npz file with the key `disparity` or `arr_0`, [T,1,H,W]."""
    truth = _load(path, "disparity", "arr_0")
    if truth.ndim != 4 or truth.shape[1] != 1:
        raise UserError(f"{path} holds an array of shape {truth.shape}, not [T,1,H,W]; extract it again.")
    return truth[:, 0]


def load_prediction(path: Path) -> NDArray[Any]:
    """Predicted disparity, [T,H,W], of an npz file with the key `depth`."""
    prediction = _load(path, "depth")
    if prediction.ndim != 3:
        raise UserError(f"{path} holds an array of shape {prediction.shape}, not [T,H,W]; predict it again.")
    return prediction


@dataclass(frozen=True)
class Scoring:
    """What `score_files` needs besides the clip."""

    pred_root: Path
    gt_root: Path
    dataset: str
    seq_len: int
    max_depth: float
    domain: Domain


def score_files(scoring: Scoring, clip: Clip) -> dict[str, Any]:
    """A clip's metrics over as many of its first frames as both files have, at most `seq_len`.

    Raises:
        UserError: a file is missing, cannot be read, or cannot be scored.
    """
    truth_path, prediction_path = scoring.gt_root / clip.disparity, clip.prediction(scoring.pred_root, scoring.dataset)
    truth, prediction = load_truth(truth_path), load_prediction(prediction_path)
    frames = min(scoring.seq_len, len(truth), len(prediction))
    try:
        scores = score_clip(prediction[:frames], truth[:frames], scoring.max_depth, scoring.domain)
    except ValueError as error:
        raise UserError(f"{prediction_path} cannot be scored: {error}.") from error
    return {"filepath_disparity": clip.disparity, "frames": frames, **scores}


@dataclass(frozen=True)
class Inference:
    """What `infer_clip` needs besides the clip."""

    video_root: Path
    pred_root: Path
    dataset: str
    engines: Path
    backend: str
    options: Options


def infer_clip(inference: Inference, clip: Clip) -> str:
    """Predict a clip, and put the prediction where `score` looks for it; in words what was done.

    Raises:
        UserError: the video is missing or cannot be read, or the engines cannot run it.
    """
    began = time.perf_counter()
    model = _load_model(inference.engines, inference.backend)
    plan = plan_job(model, inference.video_root / clip.left, inference.options)
    prediction = clip.prediction(inference.pred_root, inference.dataset)
    results = run_job(model, plan, prediction.parent, inference.options)
    written = next(path for path in results if path.suffix == ".npz")
    written.replace(prediction)
    return f"{plan.num_frames} frames of {plan.width}x{plan.height} in {time.perf_counter() - began:.1f} s"


def run_each(
    work: Callable[[T], R], items: Sequence[T], workers: int, devices: Sequence[str] = ()
) -> Iterator[tuple[T, R | Exception]]:
    """Do `work` on every item, in as many processes: each item with its result or the exception raised, in order.

    The processes are given the `devices` (of CUDA_VISIBLE_DEVICES) in turn. Without these, a single worker is this
    process.
    """
    if workers == 1 and not devices:
        for item in items:
            try:
                yield item, work(item)
            except Exception as error:
                yield item, error
        return
    context = multiprocessing.get_context("spawn")
    turns = context.Queue()
    for worker in range(workers if devices else 0):
        turns.put(devices[worker % len(devices)])
    with ProcessPoolExecutor(workers, context, _take_device, (turns if devices else None,)) as pool:
        futures: list[Future[R]] = [pool.submit(work, item) for item in items]
        try:
            for item, future in zip(items, futures, strict=True):
                try:
                    outcome: R | Exception = future.result()
                except Exception as error:
                    outcome = error
                yield item, outcome
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def extract(arguments: argparse.Namespace) -> bool:
    """`evaluate.py extract`: whether all went well."""
    dataset = BENCHMARKS[arguments.dataset.lower()].preset
    scenes = find_scenes(dataset, arguments.root, arguments.depth_root, arguments.scenes)
    rows = []
    for scene, outcome in run_each(partial(extract_scene, dataset, out=arguments.out), scenes, arguments.workers):
        if isinstance(outcome, Exception):
            _complain(scene.name, outcome)
        else:
            _say(f"{scene.name}: {len(scene.images)} frames")
            rows.append(outcome)
    meta = arguments.meta or arguments.out / f"{dataset}.csv"
    meta.parent.mkdir(parents=True, exist_ok=True)
    with meta.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ("filepath_left", "filepath_disparity"), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    _say(f"{len(rows)} of {len(scenes)} clips of {dataset}: {meta}")
    return len(rows) == len(scenes)


def infer(arguments: argparse.Namespace) -> bool:
    """`evaluate.py infer`: whether all went well."""
    benchmark = BENCHMARKS[arguments.dataset.lower()]
    clips = read_meta(arguments.meta)
    options = Options(
        process_length=_or(arguments.seq_len, benchmark.seq_len),
        dataset=benchmark.preset if arguments.max_res is None else "open",
        max_res=_or(arguments.max_res, Options.max_res),
        window_size=arguments.window_size,
        overlap=_or(arguments.overlap, benchmark.overlap),
        num_denoising_steps=arguments.num_denoising_steps,
        guidance_scale=arguments.guidance_scale,
        seed=arguments.seed,
        save_npz=True,
    )
    options.check()
    candidates = find_candidates(arguments.engines)
    engines, reason = next(iter(candidates.sets)), candidates.reason
    if options.dataset != "open":  # else every clip may have another size
        wanted = Wanted(*DATASET_SIZES[options.dataset], options.window_size, options.overlap)
        choice = choose(candidates, wanted, arguments.backend)
        engines, reason = choice.folder, choice.reason
    candidates.sets[engines].check_complete(engines)
    _say(f"Engines {engines.resolve()}: {reason}")
    if arguments.skip_existing:
        clips = [clip for clip in clips if not clip.prediction(arguments.pred_root, arguments.dataset).exists()]
    inference = Inference(
        arguments.video_root, arguments.pred_root, arguments.dataset, engines.resolve(), arguments.backend, options
    )
    workers = _or(arguments.workers, max(len(arguments.devices), 1))
    failures = 0
    for clip, outcome in run_each(partial(infer_clip, inference), clips, workers, arguments.devices):
        if isinstance(outcome, Exception):
            _complain(clip.left, outcome)
            failures += 1
        else:
            _say(f"{clip.left}: {outcome}")
    _say(f"{len(clips) - failures} of {len(clips)} clips: {arguments.pred_root / f'results_{arguments.dataset}'}")
    return not failures


def score(arguments: argparse.Namespace) -> bool:
    """`evaluate.py score`: whether all went well."""
    benchmark = BENCHMARKS[arguments.dataset.lower()]
    clips = read_meta(arguments.meta)
    scoring = Scoring(
        arguments.pred_root,
        arguments.gt_root,
        arguments.dataset,
        _or(arguments.seq_len, benchmark.seq_len),
        _or(arguments.max_depth, benchmark.max_depth),
        arguments.domain,
    )
    scores, missing = [], []
    for clip, outcome in run_each(partial(score_files, scoring), clips, arguments.workers):
        if isinstance(outcome, Exception):
            missing.append({"filepath_disparity": clip.disparity, "reason": _complain(clip.disparity, outcome)})
        else:
            errors = (f"{title} {outcome[name]:.3f}" for title, name in zip(TITLES, METRICS, strict=True))
            _say(f"{clip.disparity}: {', '.join(errors)}")
            scores.append(outcome)
    mean = mean_metrics(scores) if scores else None
    record = {
        "dataset": benchmark.preset,
        "seq_len": scoring.seq_len,
        "max_depth": scoring.max_depth,
        "domain": scoring.domain,
        "mean": mean,
        "published": dict(zip(("abs_rel", "delta1"), benchmark.published, strict=True))
        if benchmark.published
        else None,
        "clips": scores,
        "missing": missing,
    }
    out = arguments.json or arguments.pred_root / f"results_{arguments.dataset}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=2) + "\n")
    if mean:
        _say(f"\n{table(benchmark, mean, len(scores), len(clips))}\n")
    _say(f"{len(scores)} of {len(clips)} clips: {out}")
    return not missing


def table(benchmark: Benchmark, mean: dict[str, float], num_scored: int, num_clips: int) -> str:
    """The means in Markdown, beside the published figures."""
    count = f"{num_clips} clips" if num_scored == num_clips else f"{num_scored} of {num_clips} clips"
    published = dict(zip(("abs_rel", "delta1"), benchmark.published or (), strict=False))
    rows = [
        (f"{benchmark.preset}, {count}", *TITLES),
        ("---", *["---:"] * len(TITLES)),
        ("here", *(f"{mean[name]:.3f}" for name in METRICS)),
        ("DepthCrafter v1.0.1", *(f"{published[name]:.3f}" if name in published else "" for name in METRICS)),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows if published else rows[:-1]))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; its exit status: 0, or 1 if anything was missing or wrong."""
    arguments = _parser().parse_args(argv)
    try:
        return 0 if arguments.run(arguments) else 1
    except (UserError, OSError) as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr, flush=True)
        return 130


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(required=True, metavar="extract|infer|score")

    def command(name: str, run: Callable[[argparse.Namespace], bool], text: str, more: str = "") -> Any:
        added = commands.add_parser(name, help=text, description=text, epilog=more, formatter_class=raw)
        added.set_defaults(run=run)
        added.add_argument("--dataset", required=True, type=_dataset, help="sintel, scannet, KITTI, bonn or NYUv2")
        return added

    one = command("extract", extract, "Make clips, true depth and a meta CSV of a published data set.", ROOT_HELP)
    one.add_argument("--root", required=True, type=Path, help="see below")
    one.add_argument("--depth-root", type=Path, help="where its depth lies if that is elsewhere")
    one.add_argument("--out", required=True, type=Path, help="the clips go to OUT/DATASET")
    one.add_argument("--meta", type=Path, help="meta CSV to write; else OUT/DATASET.csv")
    one.add_argument("--scenes", nargs="+", metavar="NAME", help="these alone, such as Bonn's five of the paper")
    one.add_argument("--workers", type=_positive, default=1, help="processes side by side")

    one = command("infer", infer, "Predict the clips of a meta CSV.")
    one.add_argument("--meta", required=True, type=Path, help="meta CSV")
    one.add_argument("--video-root", required=True, type=Path, help="what filepath_left is relative to")
    one.add_argument("--pred-root", required=True, type=Path, help="predictions go to PRED_ROOT/results_DATASET")
    one.add_argument("--engines", type=Path, help="engine set; chosen like that of dc-rt infer if not named")
    one.add_argument("--backend", choices=backend_names(), default="auto")
    one.add_argument("--workers", type=_positive, help="processes side by side; else one a device")
    one.add_argument(
        "--devices",
        type=lambda text: text.split(","),
        default=[],
        metavar="0,1,...",
        help="GPUs, given to the workers in turn",
    )
    one.add_argument("--skip-existing", action="store_true", help="leave out clips whose prediction is there")
    one.add_argument("--seq-len", type=_positive, help="frames at most; else the data set's")
    one.add_argument("--overlap", type=int, help="frames that windows share; else the data set's")
    one.add_argument("--window-size", type=int, default=Options.window_size)
    one.add_argument("--max-res", type=int, help="follow the video's size up to this one, not the data set's")
    one.add_argument("--num-denoising-steps", type=int, default=Options.num_denoising_steps)
    one.add_argument("--guidance-scale", type=float, default=Options.guidance_scale)
    one.add_argument("--seed", type=int, default=Options.seed)

    one = command("score", score, "Compare predictions with the truth.")
    one.add_argument("--meta", required=True, type=Path, help="meta CSV")
    one.add_argument("--pred-root", required=True, type=Path, help="predictions lie in PRED_ROOT/results_DATASET")
    one.add_argument("--gt-root", required=True, type=Path, help="what filepath_disparity is relative to")
    one.add_argument("--seq-len", type=_positive, help="frames at most; else the data set's")
    one.add_argument("--max-depth", type=float, help="true depth counts below it; else the data set's")
    one.add_argument("--domain", choices=DOMAINS, default="depth", help="where errors are taken; see metrics.py")
    one.add_argument("--json", type=Path, help="JSON to write; else PRED_ROOT/results_DATASET.json")
    one.add_argument("--workers", type=_positive, default=1, help="processes side by side")
    return parser


def _dataset(name: str) -> str:
    """The name as given, since folders are called after it."""
    if name.lower() not in BENCHMARKS:
        raise argparse.ArgumentTypeError(f"there is no data set '{name}'; choose from {', '.join(LAYOUTS)}")
    return name


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 on")
    return int(text)


def _or(value: T | None, default: T) -> T:
    return default if value is None else value


@cache
def _load_model(engines: Path, backend: str) -> DepthCrafter:
    """Once a process."""
    return DepthCrafter.load(engines, backend)


def _take_device(turns: Queue[str] | None) -> None:
    """In a new worker, before anything looks at the GPUs."""
    if turns is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = turns.get()


def _load(path: Path, *keys: str) -> NDArray[Any]:
    """The array of the first of `keys` that an npz file has."""
    if not path.is_file():
        raise UserError(f"There is no file {path}; check the roots, or make it.")
    try:
        with np.load(path) as contents:
            for key in keys:
                if key in contents:
                    array: NDArray[Any] = contents[key]
                    return array
            found = ", ".join(contents)
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is not an npz file that can be read ({error}); make it again.") from error
    raise UserError(f"{path} holds {found or 'nothing'}, not {' or '.join(keys)}; make it again.")


def _say(line: str) -> None:
    print(line, flush=True)


def _complain(name: str, error: Exception) -> str:
    """Say what went wrong with a clip; that again."""
    reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    print(f"{name}: {reason}", file=sys.stderr, flush=True)
    return reason


if __name__ == "__main__":
    sys.exit(main())
