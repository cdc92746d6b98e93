"""What Blender's own Python runs for `bench/soak/blender.py`: nothing of this project but the add-on is imported."""
