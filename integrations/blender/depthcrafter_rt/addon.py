"""What Blender is told of, and told to forget."""

import bpy

from . import operators, panels, running, settings

_CLASSES = (*settings.CLASSES, *operators.CLASSES, *panels.CLASSES)


def register() -> None:
    """Called when the add-on is enabled."""
    for each in _CLASSES:
        bpy.utils.register_class(each)
    bpy.types.Scene.depthcrafter = bpy.props.PointerProperty(type=settings.Settings)
    running.register()


def unregister() -> None:
    """Called when it is disabled; a run that is under way is stopped, and kept."""
    running.unregister()
    del bpy.types.Scene.depthcrafter
    for each in reversed(_CLASSES):
        bpy.utils.unregister_class(each)
