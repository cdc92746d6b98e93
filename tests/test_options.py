"""Options: stated once, checked when they are made, named in messages as each surface has them."""

import inspect
import json
import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dc_rt import Noise, Outputs, Sampling, Source, UserError
from dc_rt.cli.app import infer
from dc_rt.errors import option, worded
from dc_rt.job.fingerprint import differences
from dc_rt.options import Options, as_flag, default_outputs, flags_of, rules


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (Sampling, "steps", 0),
        (Sampling, "steps", 2.5),
        (Sampling, "steps", True),
        (Sampling, "sampler", "abacus"),
        (Sampling, "guidance_scale", float("nan")),
        (Sampling, "window_size", 0),
        (Sampling, "overlap", -1),
        (Sampling, "overlap", 110),
        (Sampling, "seed", -1),
        (Sampling, "seed", 2**64),
        (Source, "process_length", -2),
        (Source, "target_fps", 0),
        (Source, "target_fps", float("nan")),
        (Source, "max_res", 63),
        (Source, "dataset", "abacus"),
        (Source, "fps", 1e-300),
        (Source, "fps", 1e300),
        (Source, "exposure", 1e300),
        (Outputs, "overwrite", 1),
        (Outputs, "range", "0.5,0.2"),
        (Outputs, "range", "nan,1"),
        (Outputs, "range", "0,1e39"),
        (Outputs, "range", "-3e38,3e38"),
        (Outputs, "range", "0.1,0.10000000001"),
        (Outputs, "gamma", 1e-300),
        (Outputs, "gamma", 1e300),
        (Outputs, "start_number", 10**12),
    ],
)
def test_a_wrong_value_is_refused_with_the_options_name(kind, name, value):
    with pytest.raises(UserError) as error:
        kind(**{name: value})
    assert error.value.options[0] == name
    assert str(error.value).endswith(".")
    assert flags_of(name)[0] in worded(error.value.sentence, as_flag)


def test_an_option_that_need_not_be_given_may_be_left_out():
    with pytest.raises(UserError, match=r"result_name must be a name without / .* not 'a/b'; or leave it out\.$"):
        Outputs(result_name="a/b")
    with pytest.raises(UserError, match=r"not 'large'; try size='model'\.$"):
        Outputs(size="large")


def test_an_unknown_output_is_refused_with_those_that_there_are():
    with pytest.raises(UserError, match=r"There is no outputs='bmp'; choose of depth.mp4, .*png"):
        Outputs(("depth.mp4", "bmp"))


def test_options_of_an_output_that_is_not_written_are_said_to_change_nothing():
    said = Outputs(("npz",), stereo="anaglyph", exr="nuke", gamma=2.0).without_use
    assert [worded(note, as_flag) for note in said] == [
        "--exr nuke changes nothing: the output exr is not written",
        "--stereo anaglyph changes nothing: the output stereo is not written",
    ]
    assert Outputs(("exr", "stereo"), stereo="anaglyph", exr="nuke").without_use == ()


def test_numbers_of_numpy_are_taken_as_what_they_are():
    numbers: dict[str, Any] = {"steps": np.int64(3), "guidance_scale": np.float32(1.5)}
    sampling = Sampling(**numbers)
    assert (type(sampling.steps), type(sampling.guidance_scale)) == (int, float)
    assert sampling == Sampling(steps=3, guidance_scale=1.5)


def test_the_command_line_has_every_option_with_its_default():
    parameters = inspect.signature(infer).parameters
    for kind in (Sampling, Source, Outputs):
        for name, _, default in rules(kind):
            assert parameters[name].default == default
    assert Noise().seed == Sampling().seed


def test_options_are_known_without_numpy():
    code = "import sys, dc_rt.options, dc_rt.cli.app; print({'numpy', 'av'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_sentence_names_options_as_each_surface_has_them():
    error = UserError(f"Try {option('max_res', 1024)} or {option('backend', 'onnx')}, or {option('restart', True)}.")
    assert str(error) == "Try max_res=1024 or backend='onnx', or restart=True."
    assert worded(error.sentence, as_flag) == "Try --max-res 1024 or --backend onnx, or --restart."
    assert error.options == ("max_res", "backend", "restart")


def test_a_path_is_never_taken_for_an_option():
    assert str(UserError("There is no file {steps}%s\\0.mp4.")) == "There is no file {steps}%s\\0.mp4."


def test_an_unfinished_run_of_the_first_release_is_known_by_its_options():
    """It called the steps otherwise, and had no samplers."""
    now = {"video": "a", **vars(Sampling())}
    found = {
        "video": "a",
        **{name: value for name, value in vars(Sampling()).items() if name not in ("steps", "sampler")},
    }
    assert differences(found | {"num_denoising_steps": 5}, now) == {}
    assert differences(found | {"num_denoising_steps": 4}, now) == {"steps": (4, 5)}
    assert differences(found | {"num_denoising_steps": 5}, now | {"sampler": "another"}) == {
        "sampler": ("euler", "another")
    }
    assert differences(found | {"num_denoising_steps": 5, "of the future": 1}, now) is None


def test_each_flag_is_one_options():
    flags = [flag for kind in (Sampling, Source, Outputs) for name, _, _ in rules(kind) for flag in flags_of(name)]
    assert len(flags) == len(set(flags))
    assert all(re.fullmatch("--[a-z-]+", flag) for flag in flags)


def test_options_by_name_are_taken_as_json_and_as_text_have_them() -> None:
    text = {"num-denoising-steps": "4", "target_fps": "12", "audio": "yes", "outputs": "npz, exr", "--save-png": "true"}
    typed = {"steps": 4, "target_fps": 12.0, "audio": True, "outputs": ["npz", "exr", "png"], "save_tiff": False}
    assert Options.by_name(text) == Options.by_name(typed)
    assert Options.by_name(text).outputs.names == ("npz", "exr", "png")
    assert Options.by_name({"save_npz": True}).outputs.names == (*default_outputs(), "npz")
    base = Options.by_name(text)
    assert Options.by_name({"seed": 7}, base) == replace(base, sampling=replace(base.sampling, seed=7))
    assert Options.by_name(json.loads(json.dumps(base.as_dict()))) == base


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nothing": 1}, "no option 'nothing'"),
        ({"steps": "many"}, "steps must be a whole number, not 'many'"),
        ({"steps": True}, "steps must be a whole number"),
        ({"steps": None}, "steps must be a whole number"),
        ({"gamma": "nan"}, "gamma must be a finite number"),
        ({"audio": "perhaps"}, "audio must be yes or no"),
        ({"save_npz": 2}, "save_npz must be yes or no"),
        ({"shots": 3}, "shots must be text"),
        ({"outputs": 3}, "outputs must be names"),
        ({"outputs": ["film"]}, "no outputs='film'"),
        ({"sampler": ["euler"]}, "no sampler"),
    ],
)
def test_a_wrong_option_by_name_is_one_sentence(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        Options.by_name(values)
    assert str(error.value).endswith(".")
