"""Other programs read a point cloud and a mesh; run by the Python of an environment that has them.

    python bench/viewing/readers.py frame_0000.ply frame.glb out.npz

Writes arrays, each under the name of the program with a dot before these: `points` [N,3] and `colours` [N,3] of the
cloud; `mesh.points` [N,3], `mesh.faces` [M,3], `mesh.texture` [H,W,3] and `mesh.coordinates` [N,2] in it; and
`mesh.corners`, which are points [M,3,3], of a program that numbers its points anew.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, Any]


def read_by_trimesh(ply: Path, glb: Path) -> Arrays:
    """Texture coordinates are turned upside down there."""
    import trimesh

    cloud = trimesh.load(ply)
    mesh = trimesh.load(glb, force="mesh", process=False)
    return {
        "points": cloud.vertices,
        "colours": cloud.colors[:, :3],
        "mesh.points": mesh.vertices,
        "mesh.faces": mesh.faces,
        "mesh.texture": np.asarray(mesh.visual.material.baseColorTexture.convert("RGB")),
        "mesh.coordinates": mesh.visual.uv * [1, -1] + [0, 1],
    }


def read_by_plyfile(ply: Path, glb: Path) -> Arrays:
    """Point clouds alone."""
    from plyfile import PlyData

    vertices = PlyData.read(ply)["vertex"].data
    return {
        "points": np.stack([vertices[axis] for axis in "xyz"], axis=1),
        "colours": np.stack([vertices[name] for name in ("red", "green", "blue")], axis=1),
    }


def read_by_meshio(ply: Path, glb: Path) -> Arrays:
    """Likewise. It takes the bytes of `uchar` for signed ones."""
    import meshio

    cloud = meshio.read(ply)
    colours = [cloud.point_data[name].view(np.uint8) for name in ("red", "green", "blue")]
    return {"points": cloud.points, "colours": np.stack(colours, axis=1)}


def read_by_open3d(ply: Path, glb: Path) -> Arrays:
    """Of the mesh its triangles alone: it joins and reorders vertices."""
    import open3d

    cloud = open3d.io.read_point_cloud(str(ply))
    mesh = open3d.io.read_triangle_mesh(str(glb))
    corners = np.asarray(mesh.vertices)[np.asarray(mesh.triangles)]
    return {
        "points": np.asarray(cloud.points),
        "colours": np.round(np.asarray(cloud.colors) * 255),
        "mesh.corners": corners,
    }


def read_by_pygltflib(ply: Path, glb: Path) -> Arrays:
    """Meshes alone, and of them what the file says."""
    import pygltflib
    from PIL import Image

    file = pygltflib.GLTF2().load(glb)
    blob = file.binary_blob()

    def piece(number: int) -> bytes:
        view = file.bufferViews[number]
        return bytes(blob[view.byteOffset : view.byteOffset + view.byteLength])

    primitive = file.meshes[0].primitives[0]
    views = {
        name: file.accessors[number].bufferView
        for name, number in vars(primitive.attributes).items()
        if number is not None
    }
    return {
        "mesh.points": np.frombuffer(piece(views["POSITION"]), "<f4").reshape(-1, 3),
        "mesh.coordinates": np.frombuffer(piece(views["TEXCOORD_0"]), "<f4").reshape(-1, 2),
        "mesh.faces": np.frombuffer(piece(file.accessors[primitive.indices].bufferView), "<u4").reshape(-1, 3),
        "mesh.texture": np.asarray(Image.open(io.BytesIO(piece(file.images[0].bufferView))).convert("RGB")),
    }


def main() -> None:
    """Read by all of them."""
    ply, glb, out = map(Path, sys.argv[1:])
    found: Arrays = {}
    for read in (read_by_trimesh, read_by_plyfile, read_by_meshio, read_by_open3d, read_by_pygltflib):
        program = read.__name__.removeprefix("read_by_")
        found |= {f"{program}.{name}": values for name, values in read(ply, glb).items()}
    np.savez(out, **found)


if __name__ == "__main__":
    main()
