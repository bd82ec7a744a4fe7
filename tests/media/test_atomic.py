import json
import os

import pytest

from hmhi.media.atomic import write_atomically, write_json


def test_a_failed_write_leaves_the_older_file_and_nothing_else(tmp_path):
    path = tmp_path / "a" / ("x" * 251 + ".bin")
    with write_atomically(path) as stream:
        stream.write(b"old")
    with pytest.raises(KeyboardInterrupt), write_atomically(path) as stream:
        stream.write(b"new")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_has_the_rights_that_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", {"a": [1, None]})
    finally:
        os.umask(before)
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1, None]}
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640


def test_a_device_or_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="pipe"), write_atomically(tmp_path / "pipe"):
        pass
    assert (tmp_path / "pipe").is_fifo() and len(list(tmp_path.iterdir())) == 1
