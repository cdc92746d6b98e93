"""A folder for iw3, read by iw3's own code: what a checkout of nunif has for it, and not a line of ours.

    git clone https://github.com/nagadomi/nunif
    python -m bench.soak.iw3 --nunif nunif

Runs `dc-rt infer --outputs iw3` on the demonstration clip, then does as iw3 does with the folder's `iw3_export.yml`
(`process_config_video` in iw3/utils.py): it loads the file, finds the folders, lists and loads all pictures and depth,
and opens the sound. iw3's functions are taken out of its files one by one, since these import much that a machine
without a GPU does not have; of torchvision it is one function, which stands here if that is not installed. Exits with 1
where what iw3 has in the end is not what the run wrote. Without a checkout there is nothing to do, and it says so.
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np

from bench.clips import DEMO
from dc_rt.media import read_frames

NUM_FRAMES = 12
OPTIONS = ("--num-denoising-steps", "1", "--window-size", "12", "--overlap", "4", "--process-length", str(NUM_FRAMES))


def functions(path: Path, names: Sequence[str], known: Mapping[str, Any]) -> dict[str, Any]:
    """These functions and constants of a file, wherever in it they are, with `known` as what it imports."""
    found: dict[str, Any] = dict(known)
    node: Any
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        is_constant = isinstance(node, ast.Assign) and any(getattr(each, "id", "") in names for each in node.targets)
        if is_constant or (isinstance(node, ast.FunctionDef) and node.name in names):
            if isinstance(node, ast.FunctionDef):
                node.decorator_list = []
            exec(compile(ast.Module([node], []), str(path), "exec"), found)
    return found


def problems(nunif: Path, folder: Path, clip: Path) -> list[str]:
    """What iw3 has of a folder that differs from what was written."""
    import torch
    import yaml
    from PIL import Image, ImageOps, UnidentifiedImageError

    sys.path.insert(0, str(nunif))
    from iw3.export_config import VIDEO_TYPE, ExportConfig

    try:
        from torchvision.transforms import functional
    except ImportError:
        functional = SimpleNamespace(
            pil_to_tensor=lambda image: torch.from_numpy(np.array(image).astype(np.int32))[None]
        )
    imports = {"os": os, "torch": torch, "TF": functional, "Image": Image, "ImageOps": ImageOps}
    imports["UnidentifiedImageError"] = UnidentifiedImageError
    loader = functions(nunif / "nunif/utils/image_loader.py", ["list_images", "IMG_EXTENSIONS"], imports)
    pictures = functions(nunif / "nunif/utils/pil_io.py", ["load_image_simple", "_load_image_simple"], imports)
    depths = functions(nunif / "iw3/base_depth_model.py", ["load_depth"], imports)

    found: list[str] = []
    yml = folder / "iw3_export.yml"
    loaded = ExportConfig.load(str(yml))
    said = yaml.safe_load(yml.read_text(encoding="utf-8"))
    print(loaded)
    if (loaded.type, loaded.basename, loaded.fps, loaded.mapper) != (VIDEO_TYPE, clip.stem, 12, "none"):
        found.append(f"the file says {said}")
    rgb, depth, audio = loaded.resolve_paths(str(folder))
    rgb_files, depth_files = loader["list_images"](rgb), loader["list_images"](depth)
    if not len(rgb_files) == len(depth_files) == NUM_FRAMES:
        found.append(f"{len(rgb_files)} pictures and {len(depth_files)} of depth")
    expected = np.load(folder.with_name(f"{clip.stem}.npz"))["depth"]
    height, width = expected.shape[1:]
    for index, image in enumerate(read_frames(clip, height, width, limit=NUM_FRAMES)):
        picture, _ = pictures["load_image_simple"](rgb_files[index], color="rgb")
        values, _ = depths["load_depth"](depth_files[index])
        if not (np.array(picture) == image).all():
            found.append(f"picture {index} differs")
        if values.shape != (1, height, width) or abs(values[0].numpy() - expected[index]).max() > 0.51 / 65535:
            found.append(f"depth {index} differs")
    if audio is None:
        found.append("no sound")
    else:
        with av.open(audio) as container:
            seconds = sum(frame.samples for frame in container.decode(audio=0)) / container.streams.audio[0].rate
        print(f"{NUM_FRAMES} pictures of {width}x{height}, and {seconds:.2f} s of sound")
    return found


def with_sound(path: Path) -> Path:
    """The demonstration clip's first second, with a tone."""
    with av.open(str(DEMO)) as source, av.open(str(path), "w") as container:
        video = container.add_stream_from_template(source.streams.video[0])
        sound = container.add_stream("aac", rate=48000, layout="mono")
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                container.mux(packet)
        tone = np.sin(np.arange(48000 * NUM_FRAMES // 12) * 0.06).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.sample_rate = 48000
        for audio in (frame, None):
            container.mux(sound.encode(audio))
    return path


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nunif", type=Path, default=os.environ.get("NUNIF"), help="a checkout; else $NUNIF")
    nunif = parser.parse_args().nunif
    if nunif is None:
        print("There is no checkout of nunif, so iw3 reads nothing; give one with --nunif.")
        return
    with tempfile.TemporaryDirectory() as temporary:
        clip = with_sound(Path(temporary, "demo.mp4"))
        command = [sys.executable, "-m", "dc_rt.cli", "infer", str(clip), *OPTIONS, "--outputs", "iw3,npz"]
        subprocess.run([*command, "--save-folder", temporary], check=True, stdout=subprocess.DEVNULL)
        found = problems(Path(nunif), Path(temporary, "demo_iw3"), clip)
    print("\n".join(found) or "iw3's own code reads the folder, and has what the run wrote.")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
