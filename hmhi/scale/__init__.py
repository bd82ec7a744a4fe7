"""Many videos: a function from one video to its masks, and shards of a list."""

from hmhi.scale.video import SegmentVideo

__all__ = ["SegmentVideo"]
