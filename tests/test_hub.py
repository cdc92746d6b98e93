"""What a newcomer meets at the hub: one sentence for each fault, and downloads that go on. On a hub of our own.

What is run is `dc-export onnx` in a process of its own; faults are said before it imports PyTorch.
"""

import hashlib
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from dc_rt.engine import Manifest
from dc_rt.engine.discovery import BUNDLED
from depthcrafter import make_checkpoint
from hub import BASE, READER, STRANGER, UNET, Repository, make_real_layout, serve_real_ids

UNET_FILE = "diffusion_pytorch_model.safetensors"
FIND = """
import sys
from depthcrafter.source import find_checkpoint, parts_for
found = find_checkpoint(*sys.argv[1:3], parts_for(sys.argv[3]), report=print)
print(found.base.path, found.unet.path)
"""
LOAD = """
import sys
from pathlib import Path
from dc_rt.engine import Manifest
from depthcrafter.engine import open_engines
open_engines(Path(sys.argv[1]), Manifest.read(sys.argv[1]), "none")
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    hub = serve_real_ids(*make_real_layout(tmp_path_factory.mktemp("hub")))
    server = hub.serve()
    yield hub
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub(served):
    served.clear()
    return served


@pytest.fixture
def home(tmp_path):
    return tmp_path / "huggingface"


@pytest.fixture
def run(hub, home):
    """Run Python with `arguments` as someone with access to what is gated, or `token`'s owner; by default export."""

    def run(*arguments, token=READER, **environment):
        values = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home), "HF_TOKEN": token}
        # Without what the tests' own process has set for itself.
        own = ("HF_", "TRANSFORMERS_", "DIFFUSERS_", "TQDM_")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(own)}
        environment = inherited | {key: value for key, value in (values | environment).items() if value}
        command = [sys.executable, *(arguments or ("-m", "dc_export.cli", "onnx", "--out", "set"))]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def find(run, base=BASE, unet=UNET, precision="fp16", **environment):
    return run("-c", FIND, base, unet, precision, **environment)


def one_sentence(done):
    """What the export said, once it is known to be one line, and that nothing was traced."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "tracing" not in done.stdout
    assert not Path("set").exists()
    return done.stderr


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("", ["is gated", f"accept it on ENDPOINT/{BASE}", "`hf auth login`", "HF_TOKEN"]),
        (STRANGER, ["is gated", "has no access", f"accept its licence on ENDPOINT/{BASE}"]),
        ("hf_mistyped", ["does not know the token", "from HF_TOKEN", "ENDPOINT/settings/tokens"]),
        ("hf_mistypé", ["does not know the token"]),
    ],
)
def test_who_may_not_have_it_is_told_what_to_do(hub, run, token, said):
    sentence = one_sentence(run(token=token))
    assert all(part.replace("ENDPOINT", hub.endpoint) in sentence for part in said)
    assert not any("/files/" in request for request in hub.requests)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--unet", "tencent/DepthCraftr"], "There is no repository tencent/DepthCraftr"),
        (["--unet-revision", "v9"], f"{UNET} has no revision 'v9'"),
        (["--base-revision", "0" * 40], f"{BASE} has no revision '{'0' * 40}'"),
        (["--base", "no/such/folder"], "There is no no/such/folder; give a folder"),
        (["--base", UNET], f"{UNET} is no base of DepthCrafter in the Hugging Face layout: it has no"),
        (["--unet", BASE], f"{BASE} is no UNet of DepthCrafter in the Hugging Face layout: it has no"),
        (["--precision", "fp61"], "choose one of fp32, fp16"),
    ],
)
def test_what_is_not_there_is_named(run, options, said):
    assert said in one_sentence(run("-m", "dc_export.cli", "onnx", "--out", "set", *options))


def test_no_network_is_said_without_trying_again(hub, run):
    sentence = one_sentence(run(HF_ENDPOINT="http://127.0.0.1:9"))
    assert "http://127.0.0.1:9 cannot be reached (Connection refused)" in sentence
    assert "Name or service not known" in one_sentence(run(HF_ENDPOINT="http://hub.invalid"))


@pytest.mark.parametrize("where", ["/api/models", "/resolve/", "/files/"])
def test_a_hub_that_fails_is_named_as_the_cause(hub, run, where):
    hub.failing[where] = (500, {})
    assert "HTTP 500" in one_sentence(run())
    hub.clear()
    hub.failing[where] = (429, {"Retry-After": "77"})
    sentence = one_sentence(run())
    assert "too many requests" in sentence
    assert "in 77 s" in sentence
    # Asked once, whatever the answer, but for files, which are worth another try when the hub fails.
    assert sum(where in request for request in hub.requests) == 1


def test_what_is_no_hub_is_said(hub, run):
    hub.login_page = True
    assert "is not a hub" in one_sentence(run())


def test_offline_with_an_empty_cache_is_a_sentence_and_with_a_full_one_works(hub, run):
    assert "HF_HUB_OFFLINE" in one_sentence(run(HF_HUB_OFFLINE="1"))
    assert hub.requests == []
    online = find(run)
    hub.requests.clear()
    offline = find(run, HF_HUB_OFFLINE="1", token="")
    assert (offline.returncode, offline.stdout) == (0, online.stdout.splitlines()[-1] + "\n")
    assert hub.requests == []
    # Those who lack the one file of full precision get the other.
    assert find(run, precision="fp32", HF_HUB_OFFLINE="1").returncode == 0


def test_without_a_hub_a_full_cache_serves_and_that_is_said(hub, run):
    assert find(run).returncode == 0
    hub.failing["/api/"] = (500, {})
    done = find(run)
    assert done.returncode == 0
    assert done.stdout.count("the copy in the cache serves, commit") == 2


def test_what_is_downloaded_and_how_far_it_is_is_said(hub, run, home):
    done = find(run)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    base, unet = (hub.repositories[name].branches["main"] for name in (BASE, UNET))
    assert lines[0].startswith(f"{BASE}, commit {base}: 7 files to download, ")
    assert lines[1].startswith(f"{UNET}, commit {unet}: 2 files to download, ")
    assert lines[2].startswith("Downloading ")
    assert "(100%)" in lines[-2]
    assert len(lines) < 20
    # Exactly what half precision takes: the image encoder in half precision, the VAE in both.
    files = {request.rpartition(f"{base}/")[2] for request in hub.requests if "/files/" in request and base in request}
    vae = {"vae/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.fp16.safetensors"}
    assert files == vae | {"image_encoder/model.fp16.safetensors"}
    assert hub.leaked == []
    # Nothing more the second time; and what another precision takes beside that, and no more, the third.
    hub.requests.clear()
    assert find(run).stdout == lines[-1] + "\n"
    assert sum("/api/models/" in request for request in hub.requests) == 2
    assert not any("/resolve/" in request or "/files/" in request for request in hub.requests)
    more = find(run, precision="fp32").stdout
    assert "1 file to download" in more
    # The layout is the library's own.
    script = "import sys; from huggingface_hub import hf_hub_download as get; print(get(*sys.argv[1:]))"
    library = run("-c", script, UNET, UNET_FILE, HF_HUB_OFFLINE="1")
    assert library.stdout.strip() == f"{home}/hub/models--tencent--DepthCrafter/snapshots/{unet}/{UNET_FILE}"


def test_a_terminal_gets_a_bar(hub, run, home):
    values = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "HF_TOKEN": READER, "TERM": "xterm", "COLUMNS": "100"}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")} | values
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", FIND, BASE, UNET, "fp16"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=theirs, text=True, check=True)
    os.close(theirs)
    seen = os.read(ours, 1 << 20).decode()
    os.close(ours)
    assert "download" in seen
    assert "━" in seen
    assert "%" not in done.stdout


def test_a_download_that_is_cut_off_goes_on_and_leaves_an_existing_set_as_it_was(hub, run):
    existing = Path(shutil.copytree(BUNDLED, "set"))
    before = {path: path.read_bytes() for path in existing.rglob("*") if path.is_file()}
    hub.cut[UNET_FILE] = 1 << 20
    done = run()
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"{UNET_FILE} from {UNET} broke off at 1 MB of 4 MB" in done.stderr
    assert "goes on from there" in done.stderr
    assert {path: path.read_bytes() for path in existing.rglob("*") if path.is_file()} == before
    hub.clear()
    done = find(run, precision="fp32")
    assert done.returncode == 0, done.stderr
    assert "1 MB are there already" in done.stdout
    fetched = [request for request in hub.requests if request.startswith("GET /files/")]
    assert [request.rpartition(" ")[2] for request in fetched] == ["bytes=1048576-"]
    unet = Path(done.stdout.split()[-1], UNET_FILE)
    expected = hub.repositories[UNET].commits[hub.repositories[UNET].branches["main"]] / UNET_FILE
    assert unet.read_bytes() == expected.read_bytes()


def test_a_server_without_ranges_sends_a_file_that_was_cut_off_anew(hub, run):
    hub.cut[UNET_FILE] = 1_000_000
    assert find(run).returncode == 1
    hub.clear()
    hub.rangeless = True
    assert find(run).returncode == 0


def test_a_download_that_arrives_damaged_is_refused_and_comes_anew(hub, run):
    hub.damaged.add(UNET_FILE)
    assert f"{UNET_FILE} from {UNET} arrived damaged" in one_sentence(run())
    hub.clear()
    assert find(run, precision="fp32").returncode == 0
    assert [Path(request).name for request in hub.requests if request.startswith("GET /files/")] == [UNET_FILE]


def test_a_file_of_another_size_in_the_cache_is_fetched_anew(hub, run):
    place = Path(find(run).stdout.split()[-1])
    os.truncate(place / UNET_FILE, 1000)
    assert "1 file to download" in find(run).stdout
    assert (place / UNET_FILE).stat().st_size > 1_000_000


def test_a_full_disk_is_a_sentence(hub, run, home):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full, a file on a disk that is always full")
    folder = hub.repositories[UNET].commits[hub.repositories[UNET].branches["main"]]
    blobs = home / "hub" / "models--tencent--DepthCrafter" / "blobs"
    blobs.mkdir(parents=True)
    tag = hashlib.sha256((folder / UNET_FILE).read_bytes()).hexdigest()
    (blobs / f"{tag}.part").symlink_to("/dev/full")
    assert f"The disk of {blobs} is full; make room" in one_sentence(run())


def test_too_little_room_is_said_before_the_download(hub, run, home):
    hub.claimed[UNET_FILE] = 10**16
    assert f"are free in {home}/hub; make room there, or let HF_HOME" in one_sentence(run())
    assert not any(request.startswith("GET /files/") for request in hub.requests)


def test_a_cache_that_cannot_be_written_is_a_sentence(run, home):
    home.write_text("a file, where a folder should be")
    assert "cannot be used" in one_sentence(run())


def test_what_libraries_say_is_out_of_sight_unless_asked_for(hub, run, tmp_path):
    base, unet = (hub.repositories[name].commits[hub.repositories[name].branches["main"]] for name in (BASE, UNET))
    copy = Path(shutil.copytree(base, tmp_path / "copy"))
    weights = load_file(copy / "image_encoder/model.safetensors")
    key = "vision_model.encoder.layers.1.mlp.fc1.bias"
    save_file({name: value for name, value in weights.items() if name != key}, copy / "image_encoder/model.safetensors")
    options = ["-m", "dc_export.cli", "onnx", "--out", "set", "--base", str(copy), "--unet", str(unet)]
    assert f"lacks 1 of its {len(weights)} weights ({key})" in one_sentence(run(*options))
    assert run(*options, "-v").stderr.count("\n") > 1


def test_the_real_ids_are_exported_and_their_commits_recorded_and_loaded_again(hub, run, home, tmp_path):
    done = run("-m", "dc_export.cli", "onnx", "--precision", "fp16", "--profile", "512x256", "--out", "set")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.index("(100%)") < done.stdout.index("checking the weights") < done.stdout.index("tracing")
    model = Manifest.read("set").model
    first = {name: hub.repositories[name].branches["main"] for name in (BASE, UNET)}
    assert (model.name, model.base, model.unet) == ("DepthCrafter", BASE, UNET)
    assert (model.base_revision, model.unet_revision) == (first[BASE], first[UNET])

    # The repository moves on; the reference of the set is still what it was exported from.
    _, newer = make_checkpoint(tmp_path / "newer", "tiny", seed=9)
    repository = hub.repositories[UNET]
    hub.repositories[UNET] = Repository(repository.commits | {"f" * 40: newer}, {"main": "f" * 40})
    shutil.rmtree(home)
    hub.requests.clear()
    done = run("-c", LOAD, "set", TRANSFORMERS_VERBOSITY="critical")
    hub.repositories[UNET] = repository
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    asked = [request for request in hub.requests if UNET in request]
    assert asked
    assert all(first[UNET] in request for request in asked)
