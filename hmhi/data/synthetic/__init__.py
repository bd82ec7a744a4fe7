"""Procedural videos of moving things: exact masks and flow from a seed, no download."""

from hmhi.data.synthetic.clip import SyntheticClip, render_clip
from hmhi.data.synthetic.export import write_dataset

__all__ = ["SyntheticClip", "render_clip", "write_dataset"]
