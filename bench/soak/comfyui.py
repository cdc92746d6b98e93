"""The nodes of integrations/comfyui in a ComfyUI that runs: what a person does with them, from Load Video to a result.

    python -m bench.soak.comfyui --comfyui ~/ComfyUI [--python ~/ComfyUI/.venv/bin/python] [--chromium PATH]

Starts ComfyUI's own main.py on the processor, with folders of its own and this pack alone, and speaks to it as its page
does. The schema must load under its `comfy_api`; a prompt must give the bits of `dc-rt infer`, tell its progress at
least once a window, end within a window of an interrupt and be resumed by the next; what was run is not run again, what
was changed is; every error is a sentence, and nothing is written outside of ComfyUI's folders. The memory of ComfyUI
and of the run's process is compared at 60 and 600 frames, and the example workflow is run in a headless Chromium (of
the system, or `--chromium PATH`). Writes comfyui.png into docs/ and bench/results/comfyui.json; exits with 1 where
anything is wrong. Needs the extra `soak`, a checkout of ComfyUI, and a Python that has what ComfyUI needs and dc-rt.
For Linux.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bench.checks import Checks
from bench.clips import DEMO
from bench.records import write_record
from bench.serving.comfyui import ComfyUI, Prompt, Told
from bench.serving.service import descendants
from bench.soak.memory import write_clip
from bench.soak.serve import Memory
from dc_rt.installation import install_command
from dc_rt.media import probe
from dc_rt.options import Outputs, Sampling, Source, rules
from dc_rt.windows import plan_windows

ROOT = Path(__file__).parents[2]
PACK, NAME = ROOT / "integrations" / "comfyui", "depthcrafter-rt"
WORKFLOW = PACK / "example_workflows" / "depth_of_a_video.json"
DEPTH, FRAMES = "DepthCrafterRT_DepthOfVideo", "DepthCrafterRT_LoadDepthFrames"
QUICK: dict[str, Any] = {"max_res": 64, "steps": 1, "window_size": 12, "overlap": 4}
SLOW = QUICK | {"max_res": 320, "steps": 2, "window_size": 24, "overlap": 8}
ODD_NAME = "ümlaut 'quoted' & <b> 100%#.mp4"
SHORT, LONG = 60, 600
MOST_GROWTH = 1.15
PATIENCE_MS = 180_000
# As few words in a row as any two programs share are no copy.
LEAST_COPY = 60


def prompt_of(depth: Mapping[str, Any], video: str | None = None) -> dict[str, dict[str, Any]]:
    """Depth of a video; with `video` it comes from Load Video, of ComfyUI's input folder."""
    prompt: dict[str, dict[str, Any]] = {"depth": {"class_type": DEPTH, "inputs": dict(depth)}}
    if video is not None:
        prompt["load"] = {"class_type": "LoadVideo", "inputs": {"file": video}}
        prompt["depth"]["inputs"]["video"] = ["load", 0]
    return prompt


def with_all(prompt: Prompt, start: int, count: int) -> dict[str, dict[str, Any]]:
    """The same with ComfyUI's own nodes behind every output."""
    return {
        **{name: dict(node) for name, node in prompt.items()},
        "frames": {
            "class_type": FRAMES,
            "inputs": {"record": ["depth", 3], "start": start, "count": count, "with_pictures": True},
        },
        "save": {
            "class_type": "SaveVideo",
            "inputs": {"video": ["depth", 0], "filename_prefix": "saved", "format": "auto", "codec": "auto"},
        },
        "grey": {"class_type": "SaveImage", "inputs": {"images": ["frames", 0], "filename_prefix": "grey"}},
        "pictures": {"class_type": "SaveImage", "inputs": {"images": ["frames", 2], "filename_prefix": "pictures"}},
        "mask": {"class_type": "MaskPreview", "inputs": {"mask": ["frames", 1]}},
        "preview": {"class_type": "PreviewImage", "inputs": {"images": ["depth", 2]}},
    }


def record_of(comfyui: ComfyUI, told: Told) -> Path:
    """The record of what "Depth of a Video" wrote."""
    (shown,) = told.executed("depth")["images"]
    colours: Path = comfyui.output / shown["subfolder"] / shown["filename"]
    return colours.with_name(colours.name.removesuffix("_vis.mp4") + ".json")


def schema(comfyui: ComfyUI, checks: Checks) -> None:
    """What ComfyUI's page is told of the nodes."""
    known = comfyui.ask("/object_info")
    checks.see("both nodes are there", {DEPTH, FRAMES} <= known.keys())
    inputs = known[DEPTH]["input"]["optional"]
    stated = {name: default for each in (Sampling, Source, Outputs) for name, _, default in rules(each)}
    found = {name: values["default"] for name, (_, values) in inputs.items() if name in stated}
    wrong = {name: default for name, default in found.items() if default != stated[name]}
    checks.see("defaults are those of dc_rt.options", not wrong and len(found) > 8, wrong or f"{len(found)} options")
    checks.see(
        "outputs go where ComfyUI's own nodes take them",
        known[DEPTH]["output"] == ["VIDEO", "VIDEO", "IMAGE", "STRING", "STRING"]
        and known[FRAMES]["output"] == ["IMAGE", "MASK", "IMAGE", "INT", "FLOAT"],
    )
    log = comfyui.log.read_text(errors="replace")
    said = [line for line in log.splitlines() if NAME in line and not line.strip().endswith(f"custom_nodes/{NAME}")]
    said += [line for line in log.splitlines() if NAME in line and "FAILED" in line]
    checks.see("ComfyUI has nothing to say against the pack", NAME in log and not said, said)
    templates = comfyui.ask("/workflow_templates")
    checks.see("the example workflow is among its templates", templates.get(NAME) == [WORKFLOW.stem], templates)


def whole(comfyui: ComfyUI, checks: Checks) -> None:
    """From Load Video to what ComfyUI's own nodes make of it; the same prompt again, and a changed video."""
    shutil.copy(DEMO, comfyui.input / ODD_NAME)
    prompt = with_all(prompt_of(QUICK | {"save_npz": True}, ODD_NAME), 7, 5)
    told = comfyui.run(prompt)
    checks.see("a prompt from Load Video to images and a saved video ends well", told.is_success, told.sentence)
    progress_is_told(told, probe(DEMO).num_frames, checks)
    record = record_of(comfyui, told)
    is_inside = comfyui.output / "depth" in record.parents and record.is_file()
    checks.see("results are under ComfyUI's output folder, by a plain name", is_inside, record.name)
    same_bits(record, QUICK, checks)
    frames_are_exact(comfyui, record, told, checks)
    again = comfyui.run(prompt)
    checks.see("the same prompt again runs nothing", {"depth", "frames"} <= {*again.cached}, again.cached)

    named = prompt_of(QUICK | {"video_path": ODD_NAME})
    first, second = comfyui.run(named), comfyui.run(named)
    was_done = record_of(comfyui, first) == record and not first.cached
    checks.see("by its path it is the same video, whose results are found", was_done)
    checks.see("a path whose file is as it was is not run again", "depth" in second.cached)
    before = record.stat().st_mtime_ns
    write_clip(comfyui.input / ODD_NAME, 20, 64, 64)
    third = comfyui.run(named)
    is_new = json.loads(record.read_bytes())["result"]["num_frames"] == 20 and record.stat().st_mtime_ns != before
    checks.see("a changed file is run again", third.is_success and "depth" not in third.cached and is_new)
    made = prompt_of(QUICK)
    made["images"] = {
        "class_type": FRAMES,
        "inputs": {"record": str(record), "start": 0, "count": 20, "with_pictures": True},
    }
    made["video"] = {"class_type": "CreateVideo", "inputs": {"images": ["images", 2], "fps": 12.0}}
    made["depth"]["inputs"]["video"] = ["video", 0]
    fourth = comfyui.run(made)
    checks.see("a video that another node made of images is taken", fourth.is_success, fourth.sentence)


def progress_is_told(told: Told, num_frames: int, checks: Checks) -> None:
    """At least once a window, forward alone, up to all frames."""
    values = [value for value, most in told.progress("depth") if most == num_frames]
    windows = len([*plan_windows(num_frames, QUICK["window_size"], QUICK["overlap"])])
    moves = values == sorted(values) and len({*values}) > windows and values[-1] == num_frames
    checks.see("progress comes at least once a window", moves, f"{len({*values})} values, {windows} windows")


def same_bits(record: Path, options: Mapping[str, Any], checks: Checks) -> None:
    """As `dc-rt infer` gives them."""
    with tempfile.TemporaryDirectory() as folder:
        typed = [
            f"--{name.replace('_', '-').replace('steps', 'num-denoising-steps')}={options[name]}" for name in options
        ]
        command = [sys.executable, "-m", "dc_rt.cli", "infer", str(DEMO), "--save-folder", folder, "--save-npz", *typed]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        expected = np.load(Path(folder) / "demo.npz")["depth"]
    found = np.load(record.with_suffix(".npz"))["depth"]
    checks.see("depth has the bits of `dc-rt infer`", np.array_equal(found, expected), found.shape)


def frames_are_exact(comfyui: ComfyUI, record: Path, told: Told, checks: Checks) -> None:
    """Images of the frames that were asked for, of depth and of the video, which ComfyUI saved in 8 bits."""
    from dc_rt.media.read_images import decode_images

    def saved(node: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        files = [comfyui.output / each["subfolder"] / each["filename"] for each in told.executed(node)["images"]]
        return np.stack([frame.to_ndarray(format="rgb24") for frame in decode_images(files)]).astype(np.float32)

    depth = np.load(record.with_suffix(".npz"))["depth"][7:12]
    error = float(np.abs(saved("grey")[..., 0] / 255 - depth).max())
    checks.see(
        "Load Depth Frames gives the frames that were asked for", error <= 1 / 255 + 1e-6, f"{error:.5f} at most"
    )
    checks.see("and the video's own beside them", saved("pictures").shape == (5, *depth.shape[1:], 3))


def interrupted(comfyui: ComfyUI, checks: Checks) -> dict[str, float]:
    """Interrupted amid a window, the process ends; the same prompt resumes it, to the same bits.

    Gives the seconds from the interrupt to that end, and what a window takes at the pace of the resumed run.
    """
    shutil.copy(DEMO, comfyui.input / "demo.mp4")
    prompt = prompt_of(SLOW | {"save_npz": True}, "demo.mp4")
    asked = 0.0
    ended, process = "", 0
    for message in comfyui.follow(prompt):
        ended = message.kind
        is_of_depth = message.kind == "progress" and message.data["node"] == "depth"
        if is_of_depth and not asked and message.data["value"] > 0.4 * message.data["max"]:
            (process,) = runs_of(comfyui)
            asked = time.monotonic()
            comfyui.interrupt()
    while process in runs_of(comfyui):
        time.sleep(0.01)
    seconds = time.monotonic() - asked
    checks.see("an interrupt ends the prompt", ended == "execution_interrupted", ended)
    told = comfyui.run(prompt)
    moves = [each for each in told.messages if each.kind == "progress" and 0 < each.data["value"] < each.data["max"]]
    (begins, began), (ends, end) = ((each.data["value"], each.at) for each in (moves[0], moves[-1]))
    window = (end - began) / (ends - begins) * (SLOW["window_size"] - SLOW["overlap"])
    checks.see("and its process, within a window", seconds <= window, f"{seconds:.2f} s; a window takes {window:.2f}")
    record = record_of(comfyui, told)
    resumed = json.loads(record.read_bytes())["timings"]["times_resumed"]
    checks.see("the same prompt resumes it", told.is_success and resumed == 1, f"from frame {begins:.0f} on")
    same_bits(record, SLOW, checks)
    return {"seconds": round(seconds, 2), "window_seconds": round(window, 2)}


def runs_of(comfyui: ComfyUI) -> list[int]:
    """Processes of runs that ComfyUI has."""
    found = []
    for pid in descendants(comfyui.pid):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"dc_rt.job.child" in words:
            found.append(pid)
    return found


def kept_model(comfyui: ComfyUI, checks: Checks) -> None:
    """The process stays for the next prompt if that is asked for, and goes when it is not."""
    write_clip(comfyui.input / "short.mp4", 14, 64, 64)
    pids = []
    for steps, keep in (1, True), (2, True), (3, False):
        comfyui.run(prompt_of(QUICK | {"video_path": "short.mp4", "steps": steps, "keep_model": keep}))
        pids.append(runs_of(comfyui))
    is_kept = len(pids[0]) == 1 and pids[0] == pids[1]
    checks.see("keep_model keeps the process for the next prompt", is_kept, pids)
    checks.see("without it no process is left", pids[2] == [])


def refused(comfyui: ComfyUI, checks: Checks) -> None:
    """What is wrong is one sentence at the node."""
    (comfyui.input / "none.mp4").write_text("no video")
    write_clip(comfyui.input / "short.mp4", 14, 64, 64)
    outside = set(comfyui.output.parent.iterdir())
    for what, inputs, words in (
        ("no video at all", {}, "connect one"),
        ("a file that is no video", {"video_path": "none.mp4"}, "none.mp4"),
        ("a file that is not there", {"video_path": "nowhere.mp4"}, "nowhere.mp4"),
        ("options that do not go together", {"video_path": "short.mp4", "overlap": 12}, "overlap must be smaller"),
        ("an option that there is none of", {"video_path": "short.mp4", "more_options": "nosuch=1"}, "nosuch"),
        ("a folder elsewhere", {"video_path": "short.mp4", "folder": "../elsewhere"}, "under ComfyUI's output folder"),
        ("engines that are none", {"video_path": "short.mp4", "engines": "nowhere"}, "There is no engine set"),
    ):
        told = comfyui.run(prompt_of(QUICK | inputs))
        is_sentence = words in told.sentence and told.sentence.endswith(".") and len(told.sentence.splitlines()) == 1
        checks.see(f"{what} is one sentence", told.end.kind == "execution_error" and is_sentence, told.sentence)
    checks.see("nothing is written elsewhere", set(comfyui.output.parent.iterdir()) == outside)
    beyond = {
        "frames": {"class_type": FRAMES, "inputs": {"record": "x.json", "start": 0, "count": 1, "with_pictures": False}}
    }
    beyond["save"] = {"class_type": "PreviewImage", "inputs": {"images": ["frames", 0]}}
    told = comfyui.run(beyond)
    checks.see("a record that is not there is one sentence", "x.json" in told.sentence, told.sentence)


def memory(comfyui: ComfyUI, checks: Checks) -> dict[str, Any]:
    """Of ComfyUI and of the run's process: that of many frames is that of few."""
    found: dict[int, dict[str, float]] = {}
    for num_frames in (SHORT, SHORT, LONG):  # the first one warms up
        clip = f"clip{num_frames}.mp4"
        write_clip(comfyui.input / clip, num_frames)
        prompt = prompt_of(QUICK | {"more_options": f"seed={len(found)}"}, clip)
        with Memory(comfyui.pid) as sampled:
            told = comfyui.run(prompt)
        checks.see(f"{num_frames} frames end well", told.is_success, told.sentence)
        found[num_frames] = {name: max(each) for name, each in (("comfyui", sampled.server), ("run", sampled.children))}
    for name in ("comfyui", "run"):
        short, long = found[SHORT][name], found[LONG][name]
        checks.see(
            f"memory is flat from {SHORT} to {LONG} frames: {name}",
            long <= MOST_GROWTH * short,
            f"{short:.0f}, {long:.0f} MB",
        )
    return {str(num_frames): {name: round(peak) for name, peak in each.items()} for num_frames, each in found.items()}


def in_a_browser(comfyui: ComfyUI, chromium: str, checks: Checks) -> None:
    """The example workflow as a person runs it: opened, one button, progress, videos that play; and its picture."""
    from playwright.sync_api import sync_playwright

    shutil.copy(DEMO, comfyui.input / "video.mp4")
    graph = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    of = {node["type"]: node["id"] for node in graph["nodes"]}
    depth, last = of[DEPTH], of["PreviewImage"]  # of two the one behind Load Depth Frames
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1500, "height": 1040})
        page.set_default_timeout(PATIENCE_MS)
        page.goto(comfyui.url)
        page.wait_for_function("window.app?.graph && window.app.extensionManager")
        page.wait_for_timeout(3000)
        page.keyboard.press("Escape")  # its greeting, with templates
        page.evaluate("graph => app.loadGraphData(graph)", graph)
        page.wait_for_function(f"app.graph.getNodeById({last})")
        page.evaluate(
            "([id, values]) => { for (const each of app.graph.getNodeById(id).widgets) "
            "if (each.name in values) each.value = values[each.name]; }",
            [depth, QUICK | {"max_res": 320}],
        )
        asked = page.evaluate("async () => (await app.graphToPrompt()).output")
        inputs = asked[str(depth)]["inputs"]
        checks.see(
            "the page asks for what the workflow says",
            inputs["max_res"] == 320 and inputs["save_npz"] is True and inputs["previews"] == 4,
            inputs,
        )
        page.evaluate("app.extensionManager.setting.set('Comfy.Minimap.Visible', false)")
        page.evaluate("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        page.get_by_role("button", name="Run", exact=True).first.click()
        seen: list[float] = []
        until = time.monotonic() + PATIENCE_MS / 1000
        while time.monotonic() < until and not page.evaluate(f"app.graph.getNodeById({last}).imgs?.length"):
            share = page.evaluate(f"app.graph.getNodeById({depth}).progress ?? -1")
            if share >= 0 and seen[-1:] != [share]:
                seen.append(share)
            page.wait_for_timeout(40)
        checks.see("its bar moves", len(seen) > 4 and seen == sorted(seen), f"{len(seen)} values")
        page.wait_for_timeout(2000)
        videos = page.evaluate(
            "[...document.querySelectorAll('video')].map((each) => [each.readyState, each.error?.message ?? ''])"
        )
        checks.see("source, depth and the saved video can be played", videos == [[4, ""]] * 3, videos)
        images = page.evaluate(f"app.graph.getNodeById({last}).imgs?.length ?? 0")
        checks.see("frames of the depth are shown", images == 16, images)
        page.screenshot(path=ROOT / "docs" / "comfyui.png")
        browser.close()


def without_dc_rt(checkout: Path, python: Path, folder: Path, checks: Checks) -> None:
    """Where dc-rt cannot be imported ComfyUI starts, and the node says what to do."""
    hidden = folder / "hidden" / "dc_rt"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError(\"No module named 'dc_rt'\")\n")
    with ComfyUI(checkout, python, folder / "without", {NAME: PACK}, {"PYTHONPATH": str(hidden.parent)}) as comfyui:
        info = comfyui.ask("/object_info")
        told = comfyui.run(with_all(prompt_of({"video_path": "any.mp4"}), 0, 1))
    shown = info.get(DEPTH, {}).get("description", "")
    is_said = "-m pip install" in told.sentence and shown == told.sentence
    checks.see("without dc-rt ComfyUI starts and the node has one sentence with the command", is_said, told.sentence)


def copied_lines(checkout: Path) -> list[str]:
    """What stands in ComfyUI's files and in the pack: three lines in a row of some length are no accident."""

    def runs(file: Path) -> Iterator[str]:
        stripped = (line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines())
        lines = [line for line in stripped if line and not line.startswith(("import ", "from "))]
        for three in itertools.pairwise(itertools.pairwise(lines)):
            text = "\n".join((*three[0], three[1][1]))
            if len(text) >= LEAST_COPY:
                yield text

    ours = {text: file for file in PACK.rglob("*.py") for text in runs(file)}
    theirs = (file for file in checkout.rglob("*.py") if "custom_nodes" not in file.parts)
    return sorted({f"{ours[text].name}: {text}" for file in theirs for text in runs(file) if text in ours})


def version_of(checkout: Path) -> str:
    """Of a checkout."""
    names: dict[str, str] = {}
    exec((checkout / "comfyui_version.py").read_text(), names)
    return names["__version__"]


def missing(checkout: Path | None, python: Path, chromium: str | None) -> str:
    """What is missing, in a sentence with what mends it; empty where nothing is."""
    if not (find_spec("websockets") and find_spec("playwright")):
        return f"websockets and Playwright are not both installed; run `{install_command('soak')}`."
    if chromium is None:
        return "There is no Chromium; install it (Debian: apt-get install chromium), or give --chromium PATH."
    if checkout is None or not (checkout / "main.py").is_file() or not (checkout / "comfy_api").is_dir():
        return (
            "There is no ComfyUI to try the nodes in; give a checkout of github.com/comfyanonymous/ComfyUI with "
            "--comfyui FOLDER, or in $COMFYUI."
        )
    for module, mend in ("torch", "ComfyUI's requirements.txt"), ("dc_rt", f"dc-rt (`pip install {ROOT}`)"):
        if subprocess.run([str(python), "-c", f"import {module}"], capture_output=True, check=False).returncode:
            return f"{python} cannot import {module}; install {mend} there, or give another --python."
    return ""


def main() -> None:
    """Try all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--comfyui", type=Path, default=os.environ.get("COMFYUI"), help="a checkout; else $COMFYUI")
    parser.add_argument("--python", type=Path, help="that runs it; else the one in its .venv or venv, else this one")
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    arguments = parser.parse_args()
    checkout: Path | None = Path(arguments.comfyui) if arguments.comfyui else None
    inside = [checkout / name / "bin" / "python" for name in (".venv", "venv")] if checkout else []
    python = arguments.python or next(filter(Path.is_file, inside), Path(sys.executable))
    if reason := missing(checkout, python, arguments.chromium):
        sys.exit(reason)
    assert checkout is not None
    checks = Checks()
    copies = copied_lines(checkout)
    checks.see("nothing of the pack stands in ComfyUI's files", not copies, copies)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ComfyUI(checkout, python, folder / "base", {NAME: PACK}) as comfyui:
            schema(comfyui, checks)
            whole(comfyui, checks)
            interrupt = interrupted(comfyui, checks)
            kept_model(comfyui, checks)
            refused(comfyui, checks)
            peaks = memory(comfyui, checks)
            in_a_browser(comfyui, arguments.chromium, checks)
        without_dc_rt(checkout, python, folder, checks)
    record = {
        "comfyui": version_of(checkout),
        "interrupt": interrupt,
        "peak_mb": peaks,
        # What was found has paths of the machine in it.
        "right": {what: is_right for what, (is_right, _) in checks.points.items()},
    }
    write_record(record, "comfyui")
    sys.exit(not checks.are_right)


if __name__ == "__main__":
    main()
