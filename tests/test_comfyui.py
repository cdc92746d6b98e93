"""The ComfyUI nodes as far as they know nothing of ComfyUI; `python -m bench.soak.comfyui` tries them in it."""

import ast
import json
import os
import threading
import tomllib
from pathlib import Path

import numpy as np
import pytest

from bench.processes import children_of
from dc_rt.errors import UserError, option
from dc_rt.job import JobCancelled, Planned, Progressed, Task, WindowDone
from dc_rt.job.events import AlreadyDone, Event, Warned
from dc_rt.job.spool import is_resumable
from dc_rt.models import ModelOptions
from dc_rt.options import Options, Outputs, Sampling, Source, default_outputs, rules
from dc_rt.outputs import all_outputs
from dc_rt.windows import plan_windows
from integrations.comfyui import choices, missing, pictures, places, running
from media_helpers import decode, moving_gradient, write_clip, write_images

PACK = Path(__file__).parents[1] / "integrations" / "comfyui"
DEMO = Path(__file__).parents[1] / "examples" / "demo.mp4"
QUICK = {"max_res": 64, "steps": 1, "window_size": 12, "overlap": 4}
NEVER = bool  # which is false


def refused(**inputs: object) -> str:
    with pytest.raises(UserError) as caught:
        _ = choices.models_of(inputs), choices.options_of(inputs)
    return choices.in_the_nodes_words(caught.value)


# What can be chosen


def test_widgets_have_the_defaults_and_the_bounds_of_the_options():
    known = {name: (rule, default) for each in (Sampling, Source, Outputs) for name, rule, default in rules(each)}
    shown = {widget.name: widget for widget in choices.widgets()}
    assert {"max_res", "steps", "window_size", "overlap", "save_npz", "engines"} <= shown.keys()
    for name in shown.keys() & known.keys():
        rule, default = known[name]
        assert shown[name].default == default
        assert name == "shots" or shown[name].choices == rule.choices
        if type(default) in (int, float):
            assert shown[name].least in (rule.least, rule.above, rule.instead)
            assert shown[name].most in (rule.most, 2**31 - 1, 1e5)


def test_untouched_widgets_are_the_default_options():
    inputs = {widget.name: widget.default for widget in choices.widgets()}
    assert choices.options_of(inputs) == choices.options_of({}) == Options()
    assert choices.models_of(inputs) == choices.models_of({}) == ModelOptions()


def test_no_input_is_called_as_those_that_comfyui_draws_anew_after_every_prompt():
    assert not {"seed", "noise_seed"} & {widget.name for widget in choices.widgets()}


def test_switches_add_outputs_and_what_the_node_hands_on_is_always_written():
    options = choices.options_of({"save_exr": True, "save_npz": False, choices.MORE: "outputs=png\nexr=nuke"})
    assert {*options.outputs.names} == {*default_outputs(), "exr", "png"}
    assert options.outputs.exr == "nuke"


def test_more_options_are_lines_of_any_option_and_win():
    options = choices.options_of(QUICK | {choices.MORE: "\n seed = 7\n--num-denoising-steps=3\nrange=0.1,0.9\n"})
    assert (options.sampling.seed, options.sampling.steps, options.outputs.range) == (7, 3, "0.1,0.9")


def test_wrong_values_are_refused_in_the_words_of_the_node():
    assert refused(window_size=12, overlap=12).startswith("overlap must be smaller than window_size=12")
    assert "'exr nuke'; write options as name=value" in refused(more_options="exr nuke")
    assert "cannot set result_name" in refused(more_options="result_name=../x")
    assert "cannot set name" in refused(more_options="--name=x")
    assert refused(more_options="gamma=-1").startswith("gamma in more_options must be at least")
    assert refused(backend="cuda").startswith("There is no backend=cuda; choose one of")
    assert choices.in_the_nodes_words(UserError(f"give another {option('save_folder')}.")) == "give another folder."


# Where results go


def test_results_stay_under_the_output_folder(tmp_path):
    assert places.results_folder(tmp_path, " depth/a b ") == tmp_path / "depth" / "a b"
    assert places.results_folder(tmp_path, "") == tmp_path
    for elsewhere in (
        "..",
        "a/../../b",
        "/etc",
        "C:\\x",
        "\\\\server\\x",
        "..\\x",
        "C:x",
        "a/.. /b",
        "\0",
        str(tmp_path),
    ):
        with pytest.raises(UserError, match="must be a folder under"):
            places.results_folder(tmp_path, elsewhere)


@pytest.mark.parametrize(
    "name", ["a b.mp4", "ümlaut 'quoted'.mov", "<script>.mp4", "..mp4", "100%#.mkv", "con.mp4", "-"]
)
def test_names_of_results_are_plain_and_no_paths(name):
    plain = places.result_name(Path("/videos") / name, Options(), None)
    assert Outputs(result_name=plain).result_name == plain
    assert Path(plain).name == plain
    assert not {*"<>:\"'|?*%# "} & {*plain}


def test_another_video_or_other_options_have_results_of_another_name(tmp_path):
    names = [
        places.result_name(tmp_path / "a" / "clip.mp4", Options(), None),
        places.result_name(tmp_path / "b" / "clip.mp4", Options(), None),
        places.result_name(tmp_path / "a" / "clip.mp4", Options.by_name({"steps": 3}), None),
        places.result_name(tmp_path / "a" / "clip.mp4", Options.by_name({"gamma": 2}), None),
        places.result_name(tmp_path / "a" / "clip.mp4", Options(), "engines/other"),
    ]
    assert len({*names}) == len(names)
    # What else is written changes none of the files that are there.
    assert places.result_name(tmp_path / "a" / "clip.mp4", Options.by_name({"save_npz": True}), None) == names[0]


def test_a_stamp_changes_with_the_video_or_one_of_its_images(tmp_path):
    video = write_clip(tmp_path / "clip.mp4", moving_gradient(3, 64, 64))
    images = write_images(tmp_path / "images", moving_gradient(3, 64, 64), "shot.{:04d}.png")
    for age, what in enumerate((video, images, images / "shot.%04d.png")):
        before = places.stamp(what)
        assert places.stamp(what) == before
        changed = next(iter(sorted(images.iterdir()))) if what != video else video
        os.utime(changed, ns=(0, age))
        assert places.stamp(what) != before


# Runs


def run(workplace, task, keep_model=False, is_interrupted=NEVER):
    told = []
    files = workplace.run(task, ModelOptions(), keep_model, lambda *each: told.append(each), is_interrupted)
    return files, told


def test_a_run_tells_its_progress_keeps_the_model_if_asked_and_is_done_once(tmp_path):
    options = choices.options_of(QUICK)
    task = Task(str(DEMO), str(tmp_path), options, skip_done=True)
    workplace = running.Workplace()
    files, told = run(workplace, task, keep_model=True)
    shares = [value / most for value, most in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len({*shares}) > len([*plan_windows(60, 12, 4)])
    kept = workplace.pid
    assert kept in children_of(os.getpid())
    assert sorted(run(workplace, task)[0]) == sorted(files)
    assert workplace.pid is None
    assert kept not in children_of(os.getpid())
    assert places.written(files, "_depth").name == "demo_depth.mp4"
    assert files[-1].name == "demo.json"


def test_an_interrupt_ends_the_process_and_leaves_what_the_next_run_resumes(tmp_path):
    task = Task(str(DEMO), str(tmp_path), choices.options_of(QUICK | {"max_res": 128}), skip_done=True)
    workplace, interrupted = running.Workplace(), threading.Event()

    def tell(value, most):
        if value > most / 4:
            interrupted.set()

    with pytest.raises(JobCancelled):
        workplace.run(task, ModelOptions(), True, tell, interrupted.is_set)
    assert workplace.pid is None
    assert is_resumable(task.targets.spool)
    assert not list(tmp_path.glob("*.json"))


def test_errors_of_a_run_are_one_sentence_in_the_words_of_the_node(tmp_path):
    (tmp_path / "no video.mp4").write_text("none")
    for name in ("no video.mp4", "nowhere.mp4"):
        with pytest.raises(running.NodeError) as caught:
            run(running.Workplace(), Task(str(tmp_path / name), str(tmp_path / "out"), choices.options_of(QUICK)))
        assert str(caught.value).endswith(".")
        assert len(str(caught.value).splitlines()) == 1
        assert name in str(caught.value)
    assert not (tmp_path / "out").exists()


def progress_of(*events: Event) -> list[tuple[float, float]]:
    told: list[tuple[float, float]] = []
    progress = running.Progress(lambda *each: told.append(each))
    for event in events:
        progress.hear(event)
    return told


def test_progress_is_told_at_every_window_and_not_at_every_frame():
    plan = Planned("clip.mp4", 20, 64, 64, 24.0, 20, 64, 64, 24.0, 24)
    many = [Progressed("denoiser", 1, 0.0) for _ in range(12)]
    told = progress_of(plan, *many, WindowDone(8), *many, WindowDone(20))
    assert [most for _, most in told] == [20] * len(told)
    # Of 24 evaluations and twice 20 frames.
    assert {round(20 * 12 / 64, 6), round(20 * 24 / 64, 6)} <= {round(value, 6) for value, _ in told}
    assert len(told) < len(many)
    assert progress_of(AlreadyDone(("clip.json",), 20)) == [(20, 20)]


def test_what_a_run_says_is_in_the_log_without_marks(caplog):
    with caplog.at_level("INFO", "dc_rt.comfyui"):
        progress_of(Warned(f"Take a smaller {option('max_res', 512)}."))
    assert caplog.messages == ["Take a smaller max_res=512."]


# Pictures


def test_previews_are_spread_and_are_the_frames_of_those_times(tmp_path):
    assert pictures.spread(5, 16) == [0, 1, 2, 3, 4]
    assert pictures.spread(600, 4) == [0, 200, 399, 599]
    assert pictures.spread(1, 4) == [0]
    video = write_clip(tmp_path / "clip.mp4", moving_gradient(40, 64, 96))
    all_of_it = decode(video)
    indices = pictures.spread(40, 4)
    np.testing.assert_array_equal(pictures.frames_near(video, [index / 24 for index in indices]), all_of_it[indices])


# The pack


def test_the_pack_loads_without_comfyui_and_without_dc_rt():
    for file in PACK.glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 10))
        names = {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom) and not node.level}
        if file.stem in ("__init__", "missing", "schemas", "extension"):  # what is loaded before dc-rt is
            assert not any(name.startswith("dc_rt") for name in names), file
        if file.stem in ("__init__", "missing", "choices", "places", "running", "pictures"):
            assert not any(name.startswith(("comfy", "folder_paths", "torch")) for name in names), file


def test_what_is_missing_is_one_sentence_with_the_command():
    sentence = missing.what_to_install(ImportError("No module named 'dc_rt'"))
    assert "-m pip install" in sentence
    assert str(PACK.parents[1]) in sentence
    assert len(sentence.splitlines()) == 1


def test_nothing_of_comfyui_lies_in_the_pack():
    """Its licence is another; what stands in its own files is compared by bench.soak.comfyui, which has them."""
    kinds = {".py", ".md", ".toml", ".txt", ".json"}
    files = [file for file in PACK.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert {file.suffix for file in files} <= kinds
    assert not [file for file in files if "GNU General Public" in file.read_text(encoding="utf-8")]


def test_the_registry_is_told_of_the_pack_and_of_no_package_that_anyone_could_claim():
    stated = tomllib.loads((PACK / "pyproject.toml").read_text(encoding="utf-8"))
    assert {"PublisherId", "DisplayName", "requires-comfyui"} <= stated["tool"]["comfy"].keys()
    assert stated["project"]["dependencies"] == []
    lines = (PACK / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("file", sorted((PACK / "example_workflows").glob("*.json")), ids=lambda file: file.stem)
def test_example_workflows_are_whole(file):
    graph = json.loads(file.read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in graph["nodes"]}
    for link, source, slot, target, entry, kind in graph["links"]:
        assert link in nodes[source]["outputs"][slot]["links"]
        assert nodes[target]["inputs"][entry]["link"] == link
        assert nodes[source]["outputs"][slot]["type"] == nodes[target]["inputs"][entry]["type"] == kind
    (depth,) = (node for node in nodes.values() if node["type"] == "DepthCrafterRT_DepthOfVideo")
    shown = [entry["name"] for entry in depth["inputs"] if "widget" in entry]
    derived = [widget.name for widget in choices.widgets()]
    assert shown == ["video_path", "folder", *derived, choices.MORE, "keep_model", "unload_others", "previews"]
    values = dict(zip(shown, depth["widgets_values"], strict=True))
    assert choices.options_of(values)
    assert all_outputs()["npz"].name in choices.options_of(values).outputs.names
