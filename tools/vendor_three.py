"""Make runtime/dc_rt/view/static/three.js of the npm packages three and esbuild, and write down what it was made of.

    python tools/vendor_three.py

The page of `dc-rt view` runs from one file, and a file that was opened from a disk can load no module beside it: what
the page uses of three.js is bundled into one classic script, by esbuild. Needs npm. Writes three.json, with versions
and checksums, and three.LICENSE beside it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

THREE, ESBUILD = "0.187.0", "0.28.2"
FOLDER = Path(__file__).parents[1] / "runtime" / "dc_rt" / "view" / "static"

USED = (
    "BufferAttribute",
    "BufferGeometry",
    "DataTexture",
    "DoubleSide",
    "GLSL3",
    "LinearFilter",
    "Mesh",
    "PerspectiveCamera",
    "Points",
    "RawShaderMaterial",
    "RedIntegerFormat",
    "Scene",
    "Texture",
    "UnsignedShortType",
    "WebGLRenderer",
)


def main() -> None:
    """Install both in a temporary folder, bundle, and copy."""
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("This needs npm, which comes with Node.js; install that.")
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        packages = [f"three@{THREE}", f"esbuild@{ESBUILD}"]
        subprocess.run([npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", *packages], cwd=at, check=True)
        (at / "entry.js").write_text(
            f'export {{ {", ".join(USED)} }} from "three";\n'
            'export { OrbitControls } from "three/addons/controls/OrbitControls.js";\n'
        )
        esbuild = at / "node_modules" / ".bin" / "esbuild"
        how = ["--bundle", "--minify", "--format=iife", "--global-name=THREE", "--target=es2022", "--outfile=three.js"]
        subprocess.run([esbuild, "entry.js", *how], cwd=at, check=True)
        shutil.copy(at / "three.js", FOLDER / "three.js")
        shutil.copy(at / "node_modules" / "three" / "LICENSE", FOLDER / "three.LICENSE")
        locked = json.loads((at / "package-lock.json").read_text())["packages"]
    record = {
        "three": {"version": THREE, "integrity": locked["node_modules/three"]["integrity"]},
        "esbuild": {"version": ESBUILD, "integrity": locked["node_modules/esbuild"]["integrity"]},
        "used": [*USED, "OrbitControls"],
        "sha256": hashlib.sha256((FOLDER / "three.js").read_bytes()).hexdigest(),
    }
    (FOLDER / "three.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
