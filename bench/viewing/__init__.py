"""Files of points and meshes, and pages that show them, as other programs see them."""
