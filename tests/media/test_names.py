import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmhi.errors import UserError
from hmhi.media.names import check_member, check_name, printable, safe_name

HOSTILE = {
    ".": "_", "..": "__", "...": "___", "": "_", ".hidden": "_hidden", "-rf": "_rf", "--help": "__help",
    "a/b": "a_b", "../../etc": "___.._etc", "C:\\x": "C__x", "what?*": "what__", "line\nbreak": "line_break",
    "red\x1b[31m": "red_[31m", "nul\0": "nul_", "bidi\u202e": "bidi_", os.fsdecode(b"caf\xe9"): "caf_",
    "x" * 300: "x" * 200, "\u65e5" * 100: "\u65e5" * 66,
}  # fmt: skip
HARMLESS = (
    "bear",
    "a=b",
    "clip [1]",
    "caf\u00e9",
    "\u65e5\u672c",
    "a.b.c",
    "it's {me}",
    "a-b",
    "00000",
    "$(id)",
)


def test_names_from_outside_become_harmless():
    for name, safe in HOSTILE.items():
        assert safe_name(name) == safe, name
        with pytest.raises(UserError, match="is not a plain name") as error:
            check_name(name)
        assert str(error.value).isprintable()
    for name in HARMLESS:
        assert safe_name(name) == check_name(name) == name


@given(st.text(st.characters(codec=None), max_size=300))
def test_a_safe_name_is_one_part_of_a_path(name):
    safe = safe_name(name)
    assert (Path("/out") / safe).resolve().parent == Path("/out")
    assert safe.isprintable() and len(safe.encode()) <= 200
    assert safe[0] not in ".-"
    assert safe_name(safe) == safe


def test_members_of_archives():
    for name in ("/etc/passwd", "../up", "a/../../up", "a\\b", "red\x1b[31m"):
        with pytest.raises(UserError, match="is not a plain relative path"):
            check_member(name)
    assert str(check_member("./a/b c/00000.png")) == "a/b c/00000.png"


def test_what_is_shown_has_no_control_characters():
    assert printable("a\nb\x1b[31m" + os.fsdecode(b"\xff")) == "a\\nb\\x1b[31m\\udcff"
