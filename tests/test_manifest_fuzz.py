"""Manifests that somebody edited, or that a disk garbled: each is read as what it says, or refused in one sentence."""

import copy
import json
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dc_rt import UserError
from dc_rt.engine.discovery import BUNDLED
from dc_rt.engine.manifest import FLAVOURS, GRAPHS, Manifest

BUNDLED_MANIFEST = Manifest.read(BUNDLED)
RECORD = json.loads((BUNDLED / "manifest.json").read_text())
RECORD["builds"] = {
    "rtx": {
        "version": "1.7.1.116",
        "platform": "linux-x86_64",
        "compute_capabilities": ["8.0", "12.0+"],
        "flags": ["tf32"],
        "profile": RECORD["profile"],
        "engines": {
            graph: {
                "file": {"name": f"{graph}.rtx.engine", "bytes": 10, "sha256": "0" * 64},
                "key": "1" * 64,
                "seconds": 1.5,
                "weights_bytes": 5,
                "activation_bytes": 0,
            }
            for graph in GRAPHS
        },
    }
}


def places(value, path=()):
    """Where there is a value in `value`, as keys and indices from the top."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


PLACES = sorted(places(RECORD), key=repr)
NUMBERS = st.one_of(st.integers(-(10**30), 10**30), st.floats(), st.sampled_from([0, -1, 1, 64, 2**31, 2**63, 10**400]))
TEXT = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["", "..", "a/b", "a\\b", "\ud800", "\n", "\x1b[31m", "12", "2026-13-01", "0001-01-01T00:00+14:00"]
    ),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
REMOVED = object()
EDITS = st.lists(st.tuples(st.sampled_from(PLACES), st.one_of(st.just(REMOVED), JSON)), min_size=1, max_size=3)


def edited(edits):
    record = copy.deepcopy(RECORD)
    for path, value in edits:
        if not path:
            record = None if value is REMOVED else value
            continue
        holder = record
        try:
            for key in path[:-1]:
                holder = holder[key]
            if value is REMOVED:
                del holder[path[-1]]
            else:
                holder[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            pass  # an earlier edit has removed it
    return record


def read(folder):
    """The manifest, or None where it is refused; whatever else happens fails the test."""
    try:
        manifest = Manifest.read(folder)
    except UserError as error:
        sentence = str(error)
        assert "\n" not in sentence
        assert sentence.endswith(".")
        assert len(sentence) < 500
        sentence.encode()
        return None
    return manifest


def use(manifest, folder):
    """All that a search, the doctor and a run ask of a manifest before they open a file."""
    assert len(sorted([manifest, BUNDLED_MANIFEST], key=lambda found: found.created_at)) == 2
    assert manifest.is_of_the_model_of(manifest)
    for variant in manifest.variants():
        assert variant.profile.height.min <= variant.profile.height.max
        f"{variant.model.name} {variant.precision} {variant.profile.name} {variant.created}".encode()
        for graph in GRAPHS:
            assert (folder / variant.file(graph)).parent == folder
        for check in (
            lambda variant=variant: variant.check_complete(folder),
            lambda variant=variant: variant.profile.check_size(64, 64),
            lambda variant=variant: variant.profile.check_window(8),
        ):
            with suppress(UserError):
                check()
    Manifest.write(manifest, folder)
    assert Manifest.read(folder) == manifest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=EDITS)
@example(edits=[(("created",), None)])
@example(edits=[(("format",), True)])
@example(edits=[(("graphs", "denoiser", 0, "name"), "\ud800")])
@example(edits=[(("profile", "width", "max"), "2048")])
@example(edits=[(("profile", "width", "min"), -64)])
@example(edits=[(("versions",), ["torch"])])
@example(edits=[(("builds",), [])])
@example(edits=[(("builds", "rtx", "engines"), None)])
@example(edits=[(("graphs", "denoiser"), {"name": "denoiser.onnx"})])
def test_an_edited_manifest_is_read_or_refused_in_one_sentence(folder, edits):
    (folder / "manifest.json").write_text(json.dumps(edited(edits)))
    if manifest := read(folder):
        use(manifest, folder)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, 6000), length=st.integers(0, 300), instead=st.binary(max_size=8))
@example(start=0, length=10**6, instead=b"[" * 100_000)
@example(start=0, length=10**6, instead=b'{"format": ' + b"9" * 5000 + b"}")
@example(start=0, length=10**6, instead=b"\xff\xfe{\x00}\x00")
def test_a_garbled_manifest_is_read_or_refused_in_one_sentence(folder, start, length, instead):
    contents = json.dumps(RECORD).encode()
    (folder / "manifest.json").write_bytes(contents[:start] + instead + contents[start + length :])
    if manifest := read(folder):
        use(manifest, folder)


def test_the_manifest_that_is_edited_here_is_read_as_it_is(folder):
    (folder / "manifest.json").write_text(json.dumps(RECORD))
    manifest = Manifest.read(folder)
    assert set(manifest.builds) <= set(FLAVOURS)
    use(manifest, folder)
