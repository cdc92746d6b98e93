import shutil
import subprocess
import sys

import numpy as np
import pytest

from dc_rt import UserError
from dc_rt.depth import normalised
from dc_rt.job.spool import Spool
from dc_rt.pipeline import WindowState

FINGERPRINT = {"video": "a" * 64, "window_size": 16}


def frames(count, seed=0):
    return np.random.default_rng(seed).uniform(0.2, 0.6, (count, 3, 4)).astype(np.float32)


def state(start, seed=1):
    rng = np.random.default_rng(seed)
    latents = [rng.normal(size=(n, 4, 2, 2)).astype(np.float32) for n in (5, 5, 3)]
    return WindowState(start, latents[0], rng.normal(size=(5, 8)).astype(np.float32), latents[1], latents[2])


def open_spool(folder, fingerprint=FINGERPRINT, **options):
    return Spool(folder, fingerprint, 3, 4, **options)


def begin(folder, depth, notes=None):
    with open_spool(folder) as spool:
        for frame in depth:
            spool.append(frame)
        spool.commit(state(11), notes)


def test_depth_comes_back_normalised_over_all_frames(tmp_path):
    depth = frames(5)
    expected = (depth - depth.min()) / (depth.max() - depth.min())
    with open_spool(tmp_path / "spool") as spool:
        for frame in depth:
            spool.append(frame)
        for _ in range(2):  # it can be read again
            np.testing.assert_array_equal(normalised(np.stack([*spool.frames()]), spool.range), expected)
        assert spool.range == (depth.min(), depth.max())


def test_depth_that_is_the_same_everywhere_becomes_zero(tmp_path):
    with open_spool(tmp_path / "spool") as spool:
        spool.append(np.full((3, 4), 0.7, np.float32))
        assert not normalised(np.stack([*spool.frames()]), spool.range).any()


def test_a_spool_is_taken_up_where_it_was_committed(tmp_path):
    depth = frames(7)
    with open_spool(tmp_path / "spool") as spool:
        for frame in depth[:4]:
            spool.append(frame)
        spool.commit(state(11), {"seconds": 3})
        spool.append(frames(1, seed=9)[0] + 5)  # never committed, and beyond the range
    with open_spool(tmp_path / "spool") as spool:
        assert spool.num_frames == 4
        assert spool.progress.notes == {"seconds": 3}
        assert not spool.progress.complete
        for name, value in vars(state(11)).items():
            np.testing.assert_array_equal(getattr(spool.state, name), value)
        for frame in depth[4:]:
            spool.append(frame)
        spool.commit(None)
    with open_spool(tmp_path / "spool") as spool:
        assert spool.progress.complete
        assert spool.state is None
        expected = (depth - depth.min()) / (depth.max() - depth.min())
        np.testing.assert_array_equal(normalised(np.stack([*spool.frames()]), spool.range), expected)


def test_a_spool_without_a_commit_is_removed(tmp_path):
    with open_spool(tmp_path / "spool") as spool:
        spool.append(frames(1)[0])
    assert not (tmp_path / "spool").exists()


def test_every_torn_write_leaves_a_state_to_go_on_from(tmp_path):
    """A crash while the next state is written: the draft is there in part, and the depth has more than it should."""
    depth = frames(4)
    begin(tmp_path / "spool", depth)
    whole = (tmp_path / "spool" / "state").read_bytes()
    for torn in (b"", whole[:10], whole[:-1]):
        crashed = shutil.copytree(tmp_path / "spool", tmp_path / "crashed", dirs_exist_ok=True)
        (crashed / "state.part").write_bytes(torn)
        with (crashed / "depth.f32").open("ab") as file:
            file.write(b"\x00" * 17)
        with open_spool(crashed) as spool:
            assert spool.num_frames == 4
            spool.append(depth[0])
            assert len(list(spool.frames())) == 5
            spool.commit(state(11))


@pytest.mark.parametrize("name", ["state", "depth.f32"])
@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
def test_a_damaged_spool_is_refused_and_restart_helps(tmp_path, name, harm):
    begin(tmp_path / "spool", frames(4))
    path = tmp_path / "spool" / name
    contents = bytearray(path.read_bytes())
    if harm == "flip":
        contents[len(contents) // 2] ^= 4
    path.write_bytes({"flip": contents, "cut": contents[:-7], "empty": b""}[harm])
    with pytest.raises(UserError, match="damaged; start over with restart=True"):
        open_spool(tmp_path / "spool")
    with open_spool(tmp_path / "spool", restart=True) as spool:
        assert spool.num_frames == 0
        assert spool.state is None


def test_another_run_is_told_what_differs(tmp_path):
    begin(tmp_path / "spool", frames(2))
    with pytest.raises(UserError, match=r"another window_size \(16, now 20\); .*restart=True"):
        open_spool(tmp_path / "spool", FINGERPRINT | {"window_size": 20})
    with pytest.raises(UserError, match=r"another video \(aaaaaaaa\.\.\., now bbbbbbbb\.\.\.\)"):
        open_spool(tmp_path / "spool", FINGERPRINT | {"video": "b" * 64})
    with open_spool(tmp_path / "spool") as spool:  # nothing was lost by asking
        assert spool.num_frames == 2


def test_two_runs_do_not_share_a_spool(tmp_path):
    code = f"""
from dc_rt import UserError
from dc_rt.job.spool import Spool
try:
    Spool(__import__("pathlib").Path({str(tmp_path / "spool")!r}), {FINGERPRINT!r}, 3, 4, restart=True)
except UserError as error:
    print(error)
"""
    with open_spool(tmp_path / "spool") as spool:
        spool.append(frames(1)[0])
        spool.commit(state(11))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert "Another run is working on this result" in done.stdout
        assert spool.num_frames == 1
    with open_spool(tmp_path / "spool") as spool:
        assert spool.num_frames == 1


def test_what_is_not_the_spools_own_is_never_deleted_with_it(tmp_path):
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "notes.txt").touch()
    with open_spool(tmp_path / "spool"):
        pass
    with open_spool(tmp_path / "spool") as spool:
        spool.commit(None)
        spool.delete()
    assert [path.name for path in (tmp_path / "spool").iterdir()] == ["notes.txt"]


def test_a_spool_that_is_deleted_is_never_shared(tmp_path):
    """Runs that begin and end all the time: each is alone in the spool, and none deletes what another has made."""
    code = f"""
from pathlib import Path
from dc_rt import UserError
from dc_rt.job.spool import Spool

folder, held = Path({str(tmp_path / "spool")!r}), 0
while held < 100:
    try:
        with Spool(folder, {FINGERPRINT!r}, 3, 4):
            (folder / "mine").touch(exist_ok=False)
            held += 1
            (folder / "mine").unlink()
    except UserError:
        pass
"""
    processes = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate()[1] for process in processes] == [""] * 4
    assert not (tmp_path / "spool").exists()
