import contextlib
import os
import subprocess
import sys

import pytest
from PIL import Image

from hmhi.commands.errors import report_errors
from hmhi.errors import UserError
from hmhi.media.pictures import decode


def raising(error):
    @report_errors
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("frame 3 of bear is grey"), 2, "error: frame 3 of bear is grey\n"),
        (OSError(28, "No space left on device", "x.png"), 2, "error: [Errno 28] No space left on device: 'x.png'\n"),
        (MemoryError(), 2, "error: out of memory: "),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), 2, "error: out of memory: CUDA"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (BrokenPipeError(), 0, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)  # fmt: skip
def test_how_a_command_ends(error, code, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # put back what a broken pipe takes away
    assert raising(error)() == code
    err = capsys.readouterr().err
    assert err.startswith(said) and err.count("\n") == bool(said)


def test_pillow_does_not_comment_on_odd_files(tmp_path, recwarn):
    path = tmp_path / "odd.png"  # a TIFF, whatever its name
    Image.new("RGB", (8, 8)).save(path, "TIFF")
    whole = path.read_bytes()
    start = int.from_bytes(whole[4:8], "little") + 6  # count of the first tag
    path.write_bytes(whole[:start] + (99999).to_bytes(4, "little") + whole[start + 4 :])

    def read() -> int:
        with contextlib.suppress(UserError):
            decode(path)
        return len(recwarn)

    assert read() > 0
    recwarn.clear()
    assert report_errors(read)() == 0


def test_the_reader_of_the_output_may_leave(repository):
    command = f"{sys.executable} {repository}/tools/val_zvos.py --protocol list | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_under_the_output_is_one_line(repository):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    command = f"{sys.executable} {repository}/tools/check_data.py --root nowhere > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: [Errno 28] No space left on device"
    assert "Exception ignored" not in done.stderr
