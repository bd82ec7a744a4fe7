"""Procedural videos of moving things: exact masks and flow from a seed, no download."""

from hmhi.synthetic.clip import MAX_OBJECTS, SyntheticClip, render_clip
from hmhi.synthetic.export import write_dataset

__all__ = ["MAX_OBJECTS", "SyntheticClip", "render_clip", "write_dataset"]
