"""Names from outside - of videos, list files, archive members, uploads - before they name files of ours."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from hmhi.errors import UserError

MAX_BYTES = 200
"""Length of a name in UTF-8; file systems allow 255, which leaves room for suffixes."""

_REPLACED = frozenset('/\\:*?"<>|')
"""Separators, patterns, and what other systems do not allow."""


def safe_name(name: str) -> str:
    """A name that is one harmless part of a path: our results stand below it.

    Separators, patterns, control characters, terminal escapes and bytes that are no UTF-8 become ``_``, and so do
    leading dots and dashes, which make hidden files, parent folders and options. Other names stay as they are.
    """
    kept = "".join("_" if c in _REPLACED or not c.isprintable() else c for c in name)
    kept = re.sub(r"^[.-]+", lambda found: "_" * len(found[0]), kept)
    return kept.encode()[:MAX_BYTES].decode(errors="ignore") or "_"


def check_name(name: str) -> str:
    """Return a name that is safe as it is.

    Raises:
        UserError: `safe_name` would change it.
    """
    if safe_name(name) != name:
        raise UserError(f"'{printable(name[:80])}' is not a plain name; rename it")
    return name


def check_member(name: str) -> PurePosixPath:
    """The path of an archive's member, which leads nowhere but down.

    Raises:
        UserError: It is absolute, leads out of the archive, or a part of it is not printable.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not name.isprintable():
        raise UserError(f"its member '{printable(name[:80])}' is not a plain relative path")
    return path


def printable(text: str) -> str:
    """The text with control characters and undecodable bytes escaped, safe for a terminal or a report."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
