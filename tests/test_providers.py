"""Execution providers of ONNX Runtime, by name and options: real ones, as installed here."""

import logging
from importlib.util import find_spec

import numpy as np
import onnxruntime as ort
import pytest

from dc_rt import UserError, log
from dc_rt.engine import load_engines
from dc_rt.engine.discovery import BUNDLED
from dc_rt.engine.providers import CPU, Provider, available_providers, choose_provider

LATENTS = np.random.default_rng(0).standard_normal((2, 4, 8, 16), dtype=np.float32)


def decode(provider):
    with load_engines(BUNDLED, "onnx", provider=provider) as engines:
        return engines.device, engines("vae_decoder", latents=LATENTS)


def plain_decode():
    session = ort.InferenceSession(BUNDLED / "vae_decoder.onnx", providers=[CPU])
    return session.run(None, {"latents": LATENTS})[0]


@pytest.mark.parametrize("name", ["cpu", "CPU", "CPUExecutionProvider", "cpu:use_arena=0"])
def test_a_provider_that_is_named_runs_the_graphs(name):
    device, depth = decode(name)
    assert device == "the CPU"
    np.testing.assert_array_equal(depth, plain_decode())


def test_without_a_name_nothing_changes():
    device, depth = decode(None)
    if device == "the CPU":
        np.testing.assert_array_equal(depth, plain_decode())


def test_with_a_provider_the_backend_is_onnx_runtime():
    with load_engines(BUNDLED, provider="cpu") as engines:
        assert engines.backend == "onnx"
        assert engines.why_not_tensorrt == ""


def test_options_are_passed_as_they_are_written():
    assert choose_provider("cpu:one=1,two=a=b,three=") == Provider(CPU, {"one": "1", "two": "a=b", "three": ""})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"provider": "abacus"}, r"^There is no provider='abacus' here; choose one of .*\bcpu\b.*\.$"),
        ({"provider": ""}, r"choose one of .*\bcpu\b.*\.$"),
        ({"provider": "cpu:"}, "not of the form"),
        ({"provider": "cpu:threads"}, "not of the form"),
        ({"provider": "cpu:=2"}, "not of the form"),
        ({"provider": "cpu", "backend": "tensorrt"}, r"backend='tensorrt' is something else; use backend='onnx'"),
        ({"provider": "cpu", "backend": "torch"}, r"backend='torch' is something else; use backend='onnx'"),
    ],
)
def test_a_provider_that_cannot_be_had_is_one_sentence(options, message):
    with pytest.raises(UserError, match=message) as error:
        load_engines(BUNDLED, **options)
    assert "\n" not in str(error.value)


def test_a_provider_that_a_session_goes_without_is_never_replaced_in_silence():
    """ONNX Runtime takes the names of providers that it lacks for warnings, and goes on without them."""
    from dc_rt.engine.onnx_runtime import OnnxEngine

    lacking = next(name for name in ort.get_all_providers() if name not in ort.get_available_providers())
    with pytest.raises(UserError, match=r"cannot (load|open) .*; .*\.$"):
        OnnxEngine(BUNDLED / "vae_decoder.onnx", Provider(lacking))


def test_what_is_listed_are_the_names_that_are_taken():
    for name, full in available_providers().items():
        assert choose_provider(name).name == choose_provider(full).name == full


@pytest.mark.skipif(not find_spec("onnxruntime_ep_openvino"), reason="onnxruntime-ep-openvino is not installed")
def test_a_plugin_runs_the_graphs():
    if "openvino" not in available_providers():
        pytest.skip("OpenVINO finds no device")
    device, depth = decode("openvino")
    assert device == "OpenVINO"
    np.testing.assert_allclose(depth, plain_decode(), atol=1e-4)


@pytest.fixture
def _quiet_again():
    yield
    log.set_up(False)


@pytest.mark.usefixtures("_quiet_again")
def test_verbose_tells_what_is_opened_on_standard_error_and_quiet_warns_alone(capfd):
    for verbose in (True, False):
        log.set_up(verbose)
        decode("cpu")
        logging.getLogger("dc_rt.engine").warning("A warning.")
        out, err = capfd.readouterr()
        assert out == ""
        if verbose:
            for told in (str(BUNDLED), ort.__version__, CPU, "denoiser opened in", "WARNING dc_rt.engine: A warning."):
                assert told in err
        else:
            assert err == "A warning.\n"
