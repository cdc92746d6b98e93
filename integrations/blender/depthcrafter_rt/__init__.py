"""Depth of videos in Blender: an add-on that starts `dc-rt`, follows it, and loads what it wrote.

It takes nothing but Blender's own Python. What does not speak to Blender (`command`, `program`, `follow`, `results`)
is imported without it.
"""


def register() -> None:
    """Called by Blender when the add-on is enabled."""
    from . import addon

    addon.register()


def unregister() -> None:
    """Called by Blender when the add-on is disabled; a run that is under way is stopped, and kept."""
    from . import addon

    addon.unregister()
