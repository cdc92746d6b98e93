"""Make the zip that Blender installs: `python integrations/blender/make_zip.py`; the zip's path is printed."""

from __future__ import annotations

import argparse
import tomllib
import zipfile
from pathlib import Path

SOURCE = Path(__file__).parent / "depthcrafter_rt"


def make_zip(folder: Path) -> Path:
    """Write ID-VERSION.zip, of the manifest's, into a folder: the same bytes each time."""
    manifest = tomllib.loads((SOURCE / "blender_manifest.toml").read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{manifest['id']}-{manifest['version']}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for each in sorted([SOURCE / "blender_manifest.toml", *SOURCE.glob("*.py")]):
            # Without a time, which would differ from one checkout to another.
            archive.writestr(zipfile.ZipInfo(each.name), each.read_bytes(), zipfile.ZIP_DEFLATED)
    return path


def main() -> None:
    """Build it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("dist"), help="where the zip goes; dist unless given")
    print(make_zip(parser.parse_args().folder))


if __name__ == "__main__":
    main()
