"""HMHI-Net: unsupervised video object segmentation with hierarchical memory."""

from hmhi.config import ConfigError, load_config
from hmhi.version import __version__

__all__ = ["ConfigError", "__version__", "load_config"]
