"""Manifests of engine sets without graphs: with these PyTorch runs a model before anything is exported.

    python -m bench.gpu_check.manifests                     # those of all models, in build/gpu-check/prepared

`make gpu-kit` puts them into the kit. What needs the graphs says that they are missing.
"""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path

from bench.gpu_check.models import BUILD_FOLDER, CHECKS, DRY_CHECKS, Check
from bench.speed.backends import quieten
from dc_export.profiles import load_profile
from dc_rt.engine import GRAPHS, MANIFEST, File, Manifest, Model

PREPARED = BUILD_FOLDER / "prepared"


def prepared(check: Check) -> Path:
    """The folder of a model's prepared manifest, which is written where it is missing."""
    folder = PREPARED / f"{check.name}-{check.profile}"
    if not (folder / MANIFEST).exists():
        write(check, folder)
    return folder


def write(check: Check, folder: Path) -> None:
    """Write the manifest of a model's set, of which no file is there."""
    from dc_export.export import OPSET
    from depthcrafter.layout import CONFIGS

    config = CONFIGS[check.source.removeprefix("random:")]
    nothing = hashlib.sha256(b"").hexdigest()
    manifest = Manifest(
        model=Model(check.name, check.source, check.source, None, None, config.embedding_dim, latent_channels=4),
        flavour="onnx",
        precision="fp16",
        opset=OPSET,
        profile=load_profile(check.profile),
        graphs={graph: (File(f"{graph}.onnx", 0, nothing),) for graph in GRAPHS},
        versions={},
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        target="tensorrt",
    )
    folder.mkdir(parents=True, exist_ok=True)
    manifest.write(folder)


def has_graphs(folder: Path) -> bool:
    """Whether an engine set is there with the files of its graphs, in their right sizes."""
    from dc_rt.errors import UserError

    try:
        Manifest.read(folder).check_complete(folder)
    except UserError:
        return False
    return True


def main() -> None:
    """Write all of them anew."""
    quieten()
    for check in (*CHECKS.values(), *DRY_CHECKS.values()):
        folder = PREPARED / f"{check.name}-{check.profile}"
        write(check, folder)
        print(folder)


if __name__ == "__main__":
    main()
