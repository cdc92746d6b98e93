"""Geometry node groups that make a mesh of a depth image, anew at every frame of the scene.

Both take the image at its pixels' centres. A border is added around them, from the centres of the outermost pixels to
the picture's edge, so that the mesh covers the picture.
"""

from typing import Any

import bpy

FOCAL, NEAR, FAR = 1.0, 1.0, 10.0
"""As of `dc_rt.geometry`: the focal length in widths of the picture, and the distances of disparity 1 and 0."""

SCENE_GROUP = "DepthCrafter Scene"
RELIEF_GROUP = "DepthCrafter Relief"
UV_MAP = "UVMap"
DISPARITY = "disparity"

_SMALLEST = 1e-4
# Names of inputs of both groups: kind, default, least.
_SHARED: dict[str, tuple[str, Any, Any]] = {
    "Depth": ("NodeSocketImage", None, None),
    "Material": ("NodeSocketMaterial", None, None),
    "Pixels per Vertex": ("NodeSocketInt", 1, 1),
    "Pixels Across": ("NodeSocketInt", 2, 1),
    "Pixels Down": ("NodeSocketInt", 2, 1),
    "Height to Width": ("NodeSocketFloat", 1.0, _SMALLEST),
    "First File": ("NodeSocketInt", 1, 0),
    "Last File": ("NodeSocketInt", 1, 0),
    "File at Frame 0": ("NodeSocketInt", 0, None),
    "Large is Far": ("NodeSocketBool", False, None),
}
_OF_SCENE: dict[str, tuple[str, Any, Any]] = {
    "Near": ("NodeSocketFloat", NEAR, _SMALLEST),
    "Far": ("NodeSocketFloat", FAR, _SMALLEST),
    "Focal Length": ("NodeSocketFloat", FOCAL, _SMALLEST),
    "Cut Edges": ("NodeSocketFloat", 0.0, 0.0),
}
_OF_RELIEF: dict[str, tuple[str, Any, Any]] = {
    "Width": ("NodeSocketFloat", 2.0, _SMALLEST),
    "Strength": ("NodeSocketFloat", 0.5, None),
}
_WORDS = {
    "Near": "Distance of what is nearest in the clip",
    "Far": "Distance of what is farthest in the clip",
    "Focal Length": "In widths of the picture; follows the camera's",
    "Cut Edges": "Leave out faces that connect near to far, whose ends' distances differ by more than this share; "
    "0 leaves all of them",
    "Pixels per Vertex": "1 has a vertex at every pixel of the depth",
    "File at Frame 0": "Number of the depth's file that frame 0 of the scene would show",
}


def scene_group() -> bpy.types.NodeTree:
    """The group whose mesh lies along the rays of a camera at the origin, which looks along -z."""
    return _group(SCENE_GROUP, _OF_SCENE | _SHARED, _build_scene)


def relief_group() -> bpy.types.NodeTree:
    """The group whose mesh is a plane around the origin, raised along +z by the disparity."""
    return _group(RELIEF_GROUP, _OF_RELIEF | _SHARED, _build_relief)


def inputs_of(group: bpy.types.NodeTree) -> dict[str, str]:
    """The identifiers of the group's inputs by their names: a modifier has their values by these."""
    items = group.interface.items_tree
    return {each.name: each.identifier for each in items if each.item_type == "SOCKET" and each.in_out == "INPUT"}


def _group(name: str, inputs: dict[str, tuple[str, Any, Any]], build: Any) -> bpy.types.NodeTree:
    """The group of this name in the file, if it is as it was made; else a new one."""
    found = bpy.data.node_groups.get(name)
    if found and found.bl_idname == "GeometryNodeTree" and set(inputs) <= set(inputs_of(found)):
        return found
    tree = bpy.data.node_groups.new(name, "GeometryNodeTree")
    tree.is_modifier = True
    tree.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
    for each, (kind, default, least) in inputs.items():
        socket = tree.interface.new_socket(each, in_out="INPUT", socket_type=kind)
        socket.description = _WORDS.get(each, "")
        if default is not None:
            socket.default_value = default
        if least is not None:
            socket.min_value = least
    nodes = _Nodes(tree)
    nodes.link(build(nodes), nodes.add("NodeGroupOutput").inputs["Geometry"])
    _lay_out(tree)
    return tree


class _Nodes:
    """Adds nodes to a tree; where a socket is taken, a number may stand."""

    def __init__(self, tree: bpy.types.NodeTree) -> None:
        self._tree = tree
        self.given = self.add("NodeGroupInput").outputs

    def add(self, kind: str, **properties: Any) -> Any:
        node = self._tree.nodes.new(kind)
        for name, value in properties.items():
            setattr(node, name, value)
        return node

    def link(self, value: Any, socket: Any) -> None:
        if isinstance(value, int | float):
            socket.default_value = value
        else:
            self._tree.links.new(value, socket)

    def math(self, operation: str, *values: Any) -> Any:
        node = self.add("ShaderNodeMath", operation=operation)
        for socket, value in zip(node.inputs, values, strict=False):
            self.link(value, socket)
        return node.outputs["Value"]

    def vector(self, x: Any, y: Any, z: Any) -> Any:
        node = self.add("ShaderNodeCombineXYZ")
        for socket, value in zip(node.inputs, (x, y, z), strict=True):
            self.link(value, socket)
        return node.outputs["Vector"]

    def through(self, kind: str, geometry: Any, *, also: dict[str, Any], **properties: Any) -> Any:
        """A node that takes a geometry and gives another."""
        node = self.add(kind, **properties)
        self.link(geometry, node.inputs[0])
        for name, value in also.items():
            # Some nodes have a socket of each type by the same name.
            self.link(value, next(each for each in node.inputs if each.name == name and each.enabled))
        return node.outputs[0]


def _build_scene(nodes: _Nodes) -> Any:
    given, math = nodes.given, nodes.math
    mesh, u, v, disparity = _sampled_grid(nodes)
    # 1/z = 1/far + d (1/near - 1/far)
    low = math("DIVIDE", 1.0, given["Far"])
    span = math("SUBTRACT", math("DIVIDE", 1.0, given["Near"]), low)
    z = math("DIVIDE", 1.0, math("ADD", low, math("MULTIPLY", disparity, span)))
    scale = math("DIVIDE", z, given["Focal Length"])
    x = math("MULTIPLY", math("SUBTRACT", u, 0.5), scale)
    y = math("MULTIPLY", math("MULTIPLY", math("SUBTRACT", v, 0.5), given["Height to Width"]), scale)
    mesh = nodes.through(
        "GeometryNodeSetPosition", mesh, also={"Position": nodes.vector(x, y, math("MULTIPLY", z, -1.0))}
    )
    return nodes.through("GeometryNodeSetMaterial", _without_edges(nodes, mesh), also={"Material": given["Material"]})


def _build_relief(nodes: _Nodes) -> Any:
    given, math = nodes.given, nodes.math
    mesh, u, v, disparity = _sampled_grid(nodes)
    x = math("MULTIPLY", math("SUBTRACT", u, 0.5), given["Width"])
    y = math("MULTIPLY", math("MULTIPLY", math("SUBTRACT", v, 0.5), given["Height to Width"]), given["Width"])
    z = math("MULTIPLY", disparity, given["Strength"])
    mesh = nodes.through("GeometryNodeSetPosition", mesh, also={"Position": nodes.vector(x, y, z)})
    return nodes.through("GeometryNodeSetMaterial", mesh, also={"Material": given["Material"]})


def _sampled_grid(nodes: _Nodes) -> tuple[Any, Any, Any, Any]:
    """A flat grid with its UV map and disparity stored; and u, v and disparity, larger is nearer, as fields on it."""
    given, math = nodes.given, nodes.math
    grid = nodes.add("GeometryNodeMeshGrid")
    place = nodes.add("ShaderNodeSeparateXYZ")
    nodes.link(nodes.add("GeometryNodeInputPosition").outputs[0], place.inputs[0])
    coordinates = []
    for axis, pixels in (("X", given["Pixels Across"]), ("Y", given["Pixels Down"])):
        step = given["Pixels per Vertex"]
        count = math("ADD", math("CEIL", math("DIVIDE", pixels, step)), 2.0)
        nodes.link(count, grid.inputs[f"Vertices {axis}"])
        last = math("SUBTRACT", count, 1.0)
        nodes.link(last, grid.inputs[f"Size {axis}"])
        # Counted from 0, of which the first is on the picture's edge, and the second at the first pixel's centre.
        index = math("ROUND", math("ADD", place.outputs[axis], math("MULTIPLY", last, 0.5)))
        centre = math("ADD", math("MULTIPLY", math("SUBTRACT", index, 1.0), step), 0.5)
        coordinates.append(math("MINIMUM", math("MAXIMUM", math("DIVIDE", centre, pixels), 0.0), 1.0))
    u, v = coordinates
    uv = nodes.vector(u, v, 0.0)
    mesh = nodes.through(
        "GeometryNodeStoreNamedAttribute",
        grid.outputs["Mesh"],
        data_type="FLOAT2",
        domain="CORNER",
        also={"Name": _text(nodes, UV_MAP), "Value": uv},
    )
    disparity = _disparity(nodes, uv)
    mesh = nodes.through(
        "GeometryNodeStoreNamedAttribute",
        mesh,
        data_type="FLOAT",
        domain="POINT",
        also={"Name": _text(nodes, DISPARITY), "Value": disparity},
    )
    return mesh, u, v, disparity


def _text(nodes: _Nodes, value: str) -> Any:
    return nodes.add("FunctionNodeInputString", string=value).outputs[0]


def _disparity(nodes: _Nodes, uv: Any) -> Any:
    """That of the file for the scene's frame; the first and the last one are held before and after."""
    given, math = nodes.given, nodes.math
    frame = math("FLOOR", nodes.add("GeometryNodeInputSceneTime").outputs["Frame"])
    number = math("MAXIMUM", math("ADD", frame, given["File at Frame 0"]), given["First File"])
    # Without interpolation: near and far do not mix, and at the pixels' centres there is nothing between.
    texture = nodes.add("GeometryNodeImageTexture", interpolation="Closest", extension="EXTEND")
    nodes.link(given["Depth"], texture.inputs["Image"])
    nodes.link(uv, texture.inputs["Vector"])
    nodes.link(math("MINIMUM", number, given["Last File"]), texture.inputs["Frame"])
    red = nodes.add("FunctionNodeSeparateColor")
    nodes.link(texture.outputs["Color"], red.inputs[0])
    value = red.outputs[0]
    # Turned round, 1 - d, where large is far.
    turned = math("MULTIPLY", math("SUBTRACT", 1.0, value), given["Large is Far"])
    return math("ADD", turned, math("MULTIPLY", value, math("SUBTRACT", 1.0, given["Large is Far"])))


def _without_edges(nodes: _Nodes, mesh: Any) -> Any:
    """The mesh without the faces that connect near to far, if that is asked for."""
    given, math = nodes.given, nodes.math
    ends = nodes.add("GeometryNodeInputMeshEdgeVertices")
    distances = []
    for name in ("Position 1", "Position 2"):
        split = nodes.add("ShaderNodeSeparateXYZ")
        nodes.link(ends.outputs[name], split.inputs[0])
        distances.append(math("MULTIPLY", split.outputs["Z"], -1.0))
    ratio = math("DIVIDE", math("MAXIMUM", *distances), math("MINIMUM", *distances))
    is_wide = math("GREATER_THAN", math("SUBTRACT", ratio, 1.0), given["Cut Edges"])
    is_asked_for = math("GREATER_THAN", given["Cut Edges"], 0.0)
    return nodes.through(
        "GeometryNodeDeleteGeometry",
        mesh,
        domain="EDGE",
        mode="EDGE_FACE",
        also={"Selection": math("MULTIPLY", is_wide, is_asked_for)},
    )


def _lay_out(tree: bpy.types.NodeTree) -> None:
    """Place nodes in columns by how far they are from the output, for people who open the group."""
    column = {node.name: 0 for node in tree.nodes}
    for _ in tree.nodes:  # as often as the longest chain is long, at most
        for link in tree.links:
            column[link.from_node.name] = max(column[link.from_node.name], column[link.to_node.name] + 1)
    rows: dict[int, int] = {}
    for node in tree.nodes:
        row = rows.setdefault(column[node.name], 0)
        node.location = (-200 * column[node.name], -180 * row)
        rows[column[node.name]] += 1
