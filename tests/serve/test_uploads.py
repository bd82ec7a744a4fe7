import pytest

from hmhi.serve.uploads import looks_like_video


@pytest.mark.parametrize(
    ("head", "is_video"),
    [
        (b"\x00\x00\x00\x20ftypisom", True),
        (b"\x00\x00\x00\x08wide\x00\x00", True),
        (b"\x1aE\xdf\xa3\x01\x00\x00\x00\x00\x00\x00\x1f", True),
        (b"RIFF\x00\x00\x00\x00AVI LIST", True),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", False),
        (b"#EXTM3U\nfile:///etc/passwd", False),
        (b"ffconcat version 1.0", False),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\r", False),
        (b"PK\x03\x04", False),
        (b"", False),
    ],
)
def test_what_looks_like_video(head, is_video):
    assert looks_like_video(head) is is_video
