"""A stored result looked at in space: one page for browsers, files of points and meshes, a server for far browsers."""
