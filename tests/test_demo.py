"""A clip becomes every output, in two windows, by the command: once through all rooms of the runtime, in seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from dc_rt.outputs import all_outputs
from install_helpers import ROOT

SMALL = ["--process-length", "6", "--window-size", "4", "--overlap", "2", "--max-res", "128"]


def test_the_demonstration_becomes_every_output() -> None:
    code = "from dc_rt.cli import main; main()"
    saved = [row.flag for row in all_outputs().values() if row.flag]
    others = ",".join(row.name for row in all_outputs().values() if not row.flag)
    clip = str(ROOT / "examples" / "demo.mp4")
    command = [sys.executable, "-c", code, "infer", clip, *SMALL, "--outputs", others, *saved]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.startswith(b"YUV4MPEG2 ")
    assert done.stdout.count(b"FRAME\n") == 6

    folder = Path("demo_output")
    files = [folder / f"demo{row.suffix}" for row in all_outputs().values() if row.kind == "file"]
    assert len(files) > 3
    assert all(path.stat().st_size for path in files)
    for row in all_outputs().values():
        if row.kind == "stream":
            continue
        assert len(list((folder / "demo").glob(f"frame_*{row.suffix}"))) == (6 if row.is_frames else 0)
    for kind in ("rgb", "depth"):
        assert len(list((folder / "demo_iw3" / kind).glob("*.png"))) == 6
    depth = np.load(folder / "demo.npz")["depth"]
    assert depth.dtype == np.float32
    assert depth.shape[0] == 6
    assert max(depth.shape[1:]) == 128
    assert (depth.min(), depth.max()) == (0, 1)
    assert json.loads((folder / "demo.json").read_text())["options"]["window_size"] == 4
