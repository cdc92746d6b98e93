"""Run the original DepthCrafter on a clip, and compare its depth with ours.

    python examples/run_original.py ../DepthCrafter clip.mp4 --python PYTHON --save-folder original
    python examples/run_original.py ../DepthCrafter clip.mp4 --save-folder original --compare demo_output/clip.npz

The first argument is a checkout of github.com/Tencent/DepthCrafter. Its package is called depthcrafter, as ours is: it
runs in a process of its own that sees none of ours, with a PYTHON that has what its pyproject.toml lists, on a GPU.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def run_original(checkout: Path, python: str, clip: Path, save_folder: Path, options: dict[str, str]) -> Path:
    """Run it and return the NPZ file with `depth`, float32 [T,H,W], disparity that is normalised to [0,1].

    Args:
        checkout: of Tencent/DepthCrafter.
        python: an interpreter with what it needs.
        clip: a video.
        save_folder: where its results go.
        options: of its run.py, by their names there.
    """
    if "," in str(clip.resolve()):
        sys.exit(f"The original takes {clip} for several clips, because of the comma; rename it.")
    options |= {"video_path": str(clip.resolve()), "save_folder": str(save_folder.resolve()), "save_npz": "True"}
    command = [python, "run.py", *(f"--{name}={value}" for name, value in options.items())]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if status := subprocess.run(command, cwd=checkout, env=environment, check=False).returncode:
        sys.exit(f"The original ended with status {status}; see what it says above.")
    return result_of(clip, save_folder)


def result_of(clip: Path, save_folder: Path) -> Path:
    """The NPZ file that the original writes of a clip."""
    path = save_folder / f"{clip.stem}.npz"
    if not path.is_file():
        sys.exit(f"There is no {path}; run the original first, without --compare.")
    return path


def difference(ours: NDArray[np.float32], original: NDArray[np.float32]) -> str:
    """How far two depths [T,H,W] of one clip are apart, as they are and after one scale and shift, in words."""
    if ours.shape != original.shape:
        sys.exit(f"Ours has the shape {ours.shape}, the original {original.shape}; run both with the same options.")
    x, y = ours.ravel().astype(np.float64), original.ravel().astype(np.float64)
    scale, shift = np.polyfit(x, y, 1)
    aligned = np.abs(scale * x + shift - y).mean()
    return f"mean |difference| {np.abs(x - y).mean():.5f}, {aligned:.5f} after one scale and shift"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Run the original DepthCrafter on a clip, and compare its depth.")
    parser.add_argument("checkout", type=Path, help="of Tencent/DepthCrafter")
    parser.add_argument("clip", type=Path)
    parser.add_argument("--python", default="python3", help="an interpreter with what the original needs")
    parser.add_argument("--save-folder", type=Path, default=Path("original"))
    parser.add_argument("--unet", default="tencent/DepthCrafter", help="a folder or hub id")
    parser.add_argument("--base", default="stabilityai/stable-video-diffusion-img2vid-xt", help="a folder or hub id")
    parser.add_argument("--max-res", type=int, default=1024)
    parser.add_argument("--process-length", type=int, default=-1)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument(
        "--compare", type=Path, metavar="NPZ", help="run nothing; hold our result against the original's"
    )
    arguments = parser.parse_args()
    if not (arguments.checkout / "run.py").is_file():
        sys.exit(f"{arguments.checkout} has no run.py; give a checkout of github.com/Tencent/DepthCrafter.")
    if arguments.compare:
        original = result_of(arguments.clip, arguments.save_folder)
        print(difference(np.load(arguments.compare)["depth"], np.load(original)["depth"]))
        return
    options = {
        "unet_path": path_or_id(arguments.unet),
        "pre_train_path": path_or_id(arguments.base),
        "max_res": str(arguments.max_res),
        "process_length": str(arguments.process_length),
        "num_inference_steps": str(arguments.steps),
    }
    # Not resolved: a virtual environment's interpreter is a link.
    python = os.path.abspath(arguments.python) if os.sep in arguments.python else arguments.python  # noqa: PTH100
    path = run_original(arguments.checkout, python, arguments.clip, arguments.save_folder, options)
    print(f"The original's depth is in {path}")


def path_or_id(text: str) -> str:
    """A folder as seen from anywhere, or what is no folder as it is."""
    return str(Path(text).resolve()) if Path(text).is_dir() else text


if __name__ == "__main__":
    main()
