"""Execution providers of ONNX Runtime, by name and options: real ones, as installed here."""

import logging
import sys
import threading
from importlib.util import find_spec

import numpy as np
import onnxruntime as ort
import pytest

from dc_rt import UserError, log
from dc_rt.engine import GRAPHS, Interrupted, load_engines
from dc_rt.engine.discovery import BUNDLED
from dc_rt.engine.manifest import Manifest
from dc_rt.engine.onnx_runtime import OnnxEngine, session_settings
from dc_rt.engine.providers import CPU, Provider, available_providers, choose_provider
from dc_rt.resize import resize_matrix

EMBEDDING_DIM = Manifest.read(BUNDLED).model.embedding_dim
LATENTS = np.random.default_rng(0).standard_normal((2, 4, 8, 16), dtype=np.float32)


def inputs_of(graph, frames, height, width):
    """Random inputs of a graph."""
    random = np.random.default_rng(0)
    latents = (1, frames, 4, height // 8, width // 8)

    def normal(*shape):
        return random.standard_normal(shape, dtype=np.float32)

    images = random.integers(0, 256, (frames, height, width, 3), np.uint8)
    return {
        "clip_encoder": {"frames": images, "resize_rows": resize_matrix(height), "resize_cols": resize_matrix(width)},
        "vae_encoder": {"frames": images, "noise": 0.02 * normal(frames, 3, height, width)},
        "denoiser": {
            "noisy": normal(*latents),
            "sigma": np.asarray(1.5, np.float32),
            "image_latents": normal(*latents),
            "embeddings": normal(1, frames, EMBEDDING_DIM),
        },
        "vae_decoder": {"latents": LATENTS},
    }[graph]


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


def test_threads_of_a_session_do_not_spin_which_changes_no_bit():
    assert session_settings().get_session_config_entry("session.intra_op.allow_spinning") == "0"
    depth = OnnxEngine(BUNDLED / "vae_decoder.onnx")(latents=LATENTS)["depth"]
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
    lacking = next(name for name in ort.get_all_providers() if name not in ort.get_available_providers())
    with pytest.raises(UserError, match=r"cannot (load|open) .*; .*\.$"):
        OnnxEngine(BUNDLED / "vae_decoder.onnx", Provider(lacking))


def test_what_is_listed_are_the_names_that_are_taken():
    for name, full in available_providers().items():
        assert choose_provider(name).name == choose_provider(full).name == full


@pytest.mark.skipif(not find_spec("onnxruntime_ep_openvino"), reason="onnxruntime-ep-openvino is not installed")
@pytest.mark.skipif(bool(find_spec("openvino")), reason="openvino is installed, and goes before its plugin")
def test_a_plugin_runs_the_graphs():
    if "openvino" not in available_providers():
        pytest.skip("OpenVINO finds no device")
    device, depth = decode("openvino")
    assert device == "OpenVINO"
    np.testing.assert_allclose(depth, plain_decode(), atol=1e-4)


@pytest.mark.skipif(bool(find_spec("openvino") or find_spec("onnxruntime_ep_openvino")), reason="OpenVINO is installed")
def test_openvino_that_is_not_installed_is_a_sentence_with_the_command():
    assert "openvino" not in available_providers()
    with pytest.raises(UserError, match=r"^OpenVINO is not installed; install it with `.*pip.*\[openvino\].*`.*\.$"):
        choose_provider("OpenVINO:NUM_STREAMS=1")


needs_openvino = pytest.mark.skipif(
    not find_spec("openvino"), reason="OpenVINO is not installed: it comes with the extra openvino"
)


def openvino_engine(graph, **options):
    from dc_rt.engine.openvino import OpenVinoEngine

    return OpenVinoEngine(BUNDLED / f"{graph}.onnx", options)


@needs_openvino
@pytest.mark.parametrize("graph", GRAPHS)
def test_openvino_computes_in_full_precision_unless_told_otherwise(graph):
    """By itself it computes in bfloat16 where the processor has it, which is a thousand times further off."""
    inputs = inputs_of(graph, 3, 64, 128)
    engine = openvino_engine(graph)
    ((result,), (again,)) = (engine(**inputs).values() for _ in range(2))
    (expected,) = OnnxEngine(BUNDLED / f"{graph}.onnx")(**inputs).values()
    np.testing.assert_allclose(np.asarray(result, np.float32), np.asarray(expected, np.float32), atol=1e-4)
    np.testing.assert_array_equal(again, result)


@needs_openvino
def test_openvino_takes_its_properties_by_name():
    from dc_rt.engine.openvino import computes_in

    engine = openvino_engine("vae_decoder", INFERENCE_PRECISION_HINT="bf16", INFERENCE_NUM_THREADS="1")
    error = np.abs(engine(latents=LATENTS)["depth"] - plain_decode()).max()
    assert 1e-4 < error < 0.1 if computes_in("BF16") else error < 1e-4
    with pytest.raises(UserError, match=r"Unsupported property NO_SUCH .*check the options of provider.*\.$"):
        load_engines(BUNDLED, provider="openvino:NO_SUCH=1")


@needs_openvino
def test_results_of_openvino_outlive_later_runs_and_inputs_need_not_be_contiguous():
    engine = openvino_engine("vae_decoder")
    turned = LATENTS.transpose(0, 1, 3, 2)
    first = engine(latents=LATENTS)["depth"]
    kept = first.copy()
    np.testing.assert_array_equal(engine(latents=turned)["depth"], engine(latents=turned.copy())["depth"])
    engine(latents=-LATENTS)
    np.testing.assert_array_equal(first, kept)


@needs_openvino
def test_a_run_on_openvino_is_ended_from_another_thread_and_runs_again():
    engine = openvino_engine("vae_decoder")
    expected = engine(latents=LATENTS)["depth"]
    threading.Timer(0.2, engine.interrupt).start()
    with pytest.raises(Interrupted):  # which is seconds of work
        engine(latents=np.zeros((16, 4, 32, 64), np.float32))
    with pytest.raises(Interrupted):
        engine(latents=LATENTS)
    engine.rearm()
    np.testing.assert_array_equal(engine(latents=LATENTS)["depth"], expected)


@needs_openvino
def test_openvino_runs_the_set_and_has_nobody_told_that_it_does():
    device, depth = decode("openvino")
    assert device == "the CPU (OpenVINO)"
    np.testing.assert_allclose(depth, plain_decode(), atol=1e-4)
    assert not [name for name in sys.modules if name.startswith("openvino_telemetry")]


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
