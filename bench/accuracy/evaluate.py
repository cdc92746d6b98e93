"""The benchmark of DepthCrafter: its data sets, from their published files to the table of the paper.

    python bench/evaluate.py extract --dataset sintel --root training/clean --out datasets
    python bench/evaluate.py infer --dataset sintel --meta datasets/sintel.csv --video-root datasets --pred-root out
    python bench/evaluate.py score --dataset sintel --meta datasets/sintel.csv --gt-root datasets --pred-root out
    python bench/evaluate.py --dataset all          # infer and score of every data set in datasets/, in one table

A meta CSV has the columns `filepath_left` and `filepath_disparity`, relative to the roots. The prediction of a clip is
`PRED_ROOT/results_DATASET/` and its `filepath_disparity` with `disparity` replaced by `rgb_left`. What is missing or
wrong is named, the rest goes on, and the exit status is 1 at the end. See metrics.py for the protocol.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.accuracy.dataset import DataSet
from bench.accuracy.datasets import DATASETS, find
from bench.accuracy.extract import extract_clip, find_recordings
from bench.accuracy.metrics import DOMAINS, METRICS, Domain, mean_metrics, score_clip
from bench.children import call_each, sentence
from dc_rt import DepthCrafter, UserError
from dc_rt.engine import backend_names
from dc_rt.engine.discovery import Wanted, choose, find_candidates
from dc_rt.errors import worded
from dc_rt.job import Job
from dc_rt.options import DATASET_SIZES, Outputs, Sampling, Source, as_flag, default_outputs

T = TypeVar("T")

ALL, EVALUATE = "all", "evaluate"  # of data sets, and what is done to them where no command is named

# Of the original's infer_batch.py and eval.py, by what they are here.
_ORIGINAL = {
    "--meta_path": "`--meta`",
    "--saved_root": "`--pred-root`",
    "--saved_dataset_folder": "always results_DATASET, which is left out",
    "--input_rgb_root": "`--video-root`",
    "--process_length": "`--seq-len`",
    "--gpus": "`--devices`",
    "--seq_len": "`--seq-len`",
    "--dataset_max_depth": "`--max-depth`",
    "--pred_disp_root": "`--pred-root`",
    "--gt_disp_root": "`--gt-root`",
    "--method_type": "left out, as predictions are of this project alone",
}


@dataclass(frozen=True)
class MetaRow:
    """A line of the meta CSV, as it stands there."""

    left: str
    disparity: str

    def prediction(self, pred_root: Path, dataset: str) -> Path:
        """Where the prediction lies."""
        return pred_root / f"results_{dataset}" / self.disparity.replace("disparity", "rgb_left")


def read_meta(path: Path) -> list[MetaRow]:
    """The clips of a meta CSV; raises `UserError` if it cannot be read or names none."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}); check --meta.") from error
    if not rows or not all(row.get("filepath_left") and row.get("filepath_disparity") for row in rows):
        raise UserError(f"{path} must name clips in the columns filepath_left and filepath_disparity; check --meta.")
    return [MetaRow(row["filepath_left"], row["filepath_disparity"]) for row in rows]


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


def score_files(scoring: Scoring, clip: MetaRow) -> dict[str, Any]:
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
    sampling: Sampling
    source: Source


def infer_clip(inference: Inference, clip: MetaRow) -> str:
    """Predict a clip, and put the prediction where `score` looks for it; in words what was done.

    Raises:
        UserError: the video is missing or cannot be read, or the engines cannot run it.
    """
    began = time.perf_counter()
    model = _load_model(inference.engines, inference.backend)
    prediction = clip.prediction(inference.pred_root, inference.dataset)
    outputs = Outputs((*default_outputs(), "npz"))
    video = inference.video_root / clip.left
    job = Job(model, video, inference.sampling, inference.source, outputs, prediction.parent)
    results = job.run()
    written = next(path for path in results if path.suffix == ".npz")
    written.replace(prediction)
    size = f"{job.plan.width}x{job.plan.height}"
    return f"{job.plan.num_frames} frames of {size} in {time.perf_counter() - began:.1f} s"


def extract(arguments: argparse.Namespace) -> bool:
    """`evaluate.py extract`: whether all went well."""
    dataset = _find(arguments.dataset)
    found = find_recordings(dataset, arguments.root, arguments.depth_root, arguments.scenes)
    calls = [(dataset.name, recording, arguments.out) for recording in found]
    rows = []
    for recording, outcome in zip(found, call_each(extract_clip, calls, arguments.workers), strict=True):
        if isinstance(outcome, Exception):
            _complain(recording.name, outcome)
        else:
            _say(f"{recording.name}: {len(recording.images) or dataset.length} frames")
            rows.append(outcome)
    meta = arguments.meta or arguments.out / f"{dataset.name}.csv"
    meta.parent.mkdir(parents=True, exist_ok=True)
    with meta.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ("filepath_left", "filepath_disparity"), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    _say(f"{len(rows)} of {len(found)} clips of {dataset.name}: {meta}")
    return len(rows) == len(found)


def infer(arguments: argparse.Namespace) -> bool:
    """`evaluate.py infer`: whether all went well."""
    dataset = _find(arguments.dataset)
    clips = read_meta(arguments.meta)
    source = Source(
        process_length=_or(arguments.seq_len, dataset.length),
        dataset=dataset.preset if arguments.max_res is None else "open",
        max_res=_or(arguments.max_res, Source.max_res),
    )
    sampling = Sampling(
        steps=arguments.num_denoising_steps,
        guidance_scale=arguments.guidance_scale,
        window_size=arguments.window_size,
        overlap=_or(arguments.overlap, dataset.overlap),
        seed=arguments.seed,
    )
    candidates = find_candidates(arguments.engines)
    engines, reason = next(iter(candidates.sets)), candidates.reason
    if source.dataset != "open":  # else every clip may have another size
        wanted = Wanted(*DATASET_SIZES[source.dataset], sampling.window_size, sampling.overlap)
        choice = choose(candidates, wanted, arguments.backend)
        engines, reason = choice.folder, choice.reason
    candidates.sets[engines].check_complete(engines)
    _say(f"Engines {engines.resolve()}: {worded(reason, as_flag)}")
    if arguments.skip_existing:
        clips = [clip for clip in clips if not clip.prediction(arguments.pred_root, arguments.dataset).exists()]
    folders = (arguments.video_root, arguments.pred_root)
    inference = Inference(*folders, arguments.dataset, engines.resolve(), arguments.backend, sampling, source)
    workers = _or(arguments.workers, max(len(arguments.devices), 1))
    failures = 0
    calls = [(inference, clip) for clip in clips]
    for clip, outcome in zip(clips, call_each(infer_clip, calls, workers, arguments.devices), strict=True):
        if isinstance(outcome, Exception):
            _complain(clip.left, outcome)
            failures += 1
        else:
            _say(f"{clip.left}: {outcome}")
    _say(f"{len(clips) - failures} of {len(clips)} clips: {arguments.pred_root / f'results_{arguments.dataset}'}")
    return not failures


def score(arguments: argparse.Namespace) -> bool:
    """`evaluate.py score`: whether all went well."""
    dataset = _find(arguments.dataset)
    clips = read_meta(arguments.meta)
    scoring = Scoring(
        arguments.pred_root,
        arguments.gt_root,
        arguments.dataset,
        _or(arguments.seq_len, dataset.length),
        _or(arguments.max_depth, dataset.max_depth),
        arguments.domain,
    )
    scores, missing = [], []
    calls = [(scoring, clip) for clip in clips]
    for clip, outcome in zip(clips, call_each(score_files, calls, arguments.workers), strict=True):
        if isinstance(outcome, Exception):
            missing.append({"filepath_disparity": clip.disparity, "reason": _complain(clip.disparity, outcome)})
        else:
            errors = (f"{metric.title} {outcome[name]:.3f}" for name, metric in METRICS.items())
            _say(f"{clip.disparity}: {', '.join(errors)}")
            scores.append(outcome)
    mean = mean_metrics(scores) if scores else None
    record = {
        "dataset": dataset.name,
        "seq_len": scoring.seq_len,
        "max_depth": scoring.max_depth,
        "domain": scoring.domain,
        "mean": mean,
        "published": dict(zip(("abs_rel", "delta1"), dataset.published, strict=True)) if dataset.published else None,
        "clips": scores,
        "missing": missing,
    }
    out = arguments.json or _scores_of(arguments.pred_root, arguments.dataset)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=2) + "\n")
    if mean:
        _say(f"\n{table(dataset, mean, len(scores), len(clips))}\n")
    _say(f"{len(scores)} of {len(clips)} clips: {out}")
    return not missing


def evaluate(arguments: argparse.Namespace) -> bool:
    """`evaluate.py --dataset all`, or NAME: infer and score of each data set, and one table; whether all went well."""
    every = [name for name in DATASETS if name in DATASET_SIZES]  # the paper's five: our own scenes are made
    names = every if arguments.dataset == ALL else [_find(arguments.dataset).name]
    found: dict[str, dict[str, Any]] = {}
    well = True
    for name in names:
        _say(f"\n{name}")
        try:
            well &= _evaluate_one(arguments, name)
            found[name] = json.loads(_scores_of(arguments.pred_root, name).read_text())
        except (UserError, OSError) as error:
            found[name] = {"missing_because": _complain(name, error)}
            well = False
    _say(f"\n{table_of_all(found)}\n")
    out = arguments.json or arguments.pred_root / "results.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=2) + "\n")
    _say(f"{sum('mean' in record for record in found.values())} of {len(names)} data sets: {out}")
    return well


def _evaluate_one(arguments: argparse.Namespace, name: str) -> bool:
    meta = arguments.meta_root / f"{name}.csv"
    if not meta.is_file():
        raise UserError(
            f"There is no {meta}; make it with `python bench/evaluate.py extract --dataset {name} --root WHERE-IT-LIES "
            f"--out {arguments.meta_root}`."
        )
    roots = {"video_root": arguments.meta_root, "gt_root": arguments.meta_root}
    one = argparse.Namespace(**vars(arguments) | roots | {"dataset": name, "meta": meta, "json": None})
    inferred = infer(one)
    one.workers = _or(arguments.workers, 1)
    return score(one) and inferred


def table_of_all(found: dict[str, dict[str, Any]]) -> str:
    """The means of every data set in Markdown, with what is published of it; a line a data set."""
    heads = ("data set", "clips", *(metric.title for metric in METRICS.values()), "published AbsRel, d1")
    rows = [heads, ("---", *["---:"] * (len(heads) - 1))]
    for name, record in found.items():
        mean, clips = record.get("mean"), len(record.get("clips", ()))
        figures = [f"{mean[metric]:.3f}" if mean else "" for metric in METRICS]
        published = record.get("published") or {}
        told = ", ".join(f"{value:.3f}" for value in published.values())
        rows.append((name, f"{clips} of {clips + len(record.get('missing', ()))}", *figures, told))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def table(dataset: DataSet, mean: dict[str, float], num_scored: int, num_clips: int) -> str:
    """The means in Markdown, beside the published figures."""
    count = f"{num_clips} clips" if num_scored == num_clips else f"{num_scored} of {num_clips} clips"
    published = dict(zip(("abs_rel", "delta1"), dataset.published or (), strict=False))
    rows = [
        (f"{dataset.name}, {count}", *(metric.title for metric in METRICS.values())),
        ("---", *["---:"] * len(METRICS)),
        ("here", *(f"{mean[name]:.3f}" for name in METRICS)),
        ("DepthCrafter v1.0.1", *(f"{published[name]:.3f}" if name in published else "" for name in METRICS)),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows if published else rows[:-1]))


def _scores_of(pred_root: Path, dataset: str) -> Path:
    return pred_root / f"results_{dataset}.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; its exit status: 0, or 1 if anything was missing or wrong."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0].startswith("--dataset"):
        words.insert(0, EVALUATE)
    if fixes := _counterparts(words):
        print(f"That is what the original takes; here, {', '.join(fixes)}.", file=sys.stderr, flush=True)
        return 2
    arguments = _parser().parse_args(words)
    try:
        return 0 if arguments.run(arguments) else 1
    except UserError as error:
        print(worded(error.sentence, as_flag), file=sys.stderr, flush=True)
        return 1
    except OSError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr, flush=True)
        return 130


def _counterparts(words: Sequence[str]) -> list[str]:
    """What to type for each of the words that is an option of the original's scripts and none of these."""
    names = (word.partition("=")[0] for word in words if word.startswith("--"))
    return [f"{name} is {_ORIGINAL[name]}" for name in dict.fromkeys(names) if name in _ORIGINAL]


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(required=True, metavar=f"extract|infer|score|{EVALUATE}")

    def command(name: str, run: Callable[[argparse.Namespace], bool], text: str, more: str = "") -> Any:
        added = commands.add_parser(name, help=text, description=text, epilog=more, formatter_class=raw)
        added.set_defaults(run=run)
        everything, named = (f"{ALL}, or ", _dataset_or_all) if name == EVALUATE else ("", _dataset)
        added.add_argument("--dataset", required=True, type=named, help=f"{everything}one of {', '.join(DATASETS)}")
        return added

    one = command("extract", extract, "Make clips, true depth and a meta CSV of a published data set.", _where())
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
    _add_inference(one)

    one = command("score", score, "Compare predictions with the truth.")
    one.add_argument("--meta", required=True, type=Path, help="meta CSV")
    one.add_argument("--pred-root", required=True, type=Path, help="predictions lie in PRED_ROOT/results_DATASET")
    one.add_argument("--gt-root", required=True, type=Path, help="what filepath_disparity is relative to")
    one.add_argument("--seq-len", type=_positive, help="frames at most; else the data set's")
    _add_scoring(one)
    one.add_argument("--json", type=Path, help="JSON to write; else PRED_ROOT/results_DATASET.json")
    one.add_argument("--workers", type=_positive, default=1, help="processes side by side")

    one = command(
        EVALUATE, evaluate, "Predict and score data sets, all of them in one table; the command if none is named."
    )
    one.add_argument(
        "--meta-root", type=Path, default=Path("datasets"), help="where extract has put data sets and CSVs"
    )
    one.add_argument("--pred-root", type=Path, default=Path("predictions"), help="where predictions and scores go")
    _add_inference(one)
    _add_scoring(one)
    one.add_argument("--json", type=Path, help="JSON to write; else PRED_ROOT/results.json")
    return parser


def _add_inference(one: argparse.ArgumentParser) -> None:
    """How clips are predicted."""
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
    one.add_argument("--window-size", type=int, default=Sampling.window_size)
    one.add_argument("--max-res", type=int, help="follow the video's size up to this one, not the data set's")
    one.add_argument("--num-denoising-steps", type=int, default=Sampling.steps)
    one.add_argument("--guidance-scale", type=float, default=Sampling.guidance_scale)
    one.add_argument("--seed", type=int, default=Sampling.seed)


def _add_scoring(one: argparse.ArgumentParser) -> None:
    """How predictions are compared with the truth."""
    one.add_argument("--max-depth", type=float, help="true depth counts below it; else the data set's")
    one.add_argument("--domain", choices=DOMAINS, default="depth", help="where errors are taken; see metrics.py")


def _dataset(name: str) -> str:
    """The name as given, since folders are called after it."""
    _find(name)
    return name


def _dataset_or_all(name: str) -> str:
    return name if name == ALL else _dataset(name)


def _find(name: str) -> DataSet:
    if dataset := find(name):
        return dataset
    raise argparse.ArgumentTypeError(f"there is no data set '{name}'; choose from {', '.join(DATASETS)}")


def _where() -> str:
    lines = (f"{dataset.name}: {dataset.where}" for dataset in DATASETS.values())
    return "\n".join(["where the data sets' images lie, as published:", *lines])


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
    reason = sentence(error)
    print(f"{name}: {reason}", file=sys.stderr, flush=True)
    return reason
