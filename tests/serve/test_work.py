import pytest
from serving import make_video

from hmhi.errors import UserError
from hmhi.serve.settings import JobOptions, Limits, Network, Task
from hmhi.serve.work import UPLOAD, build


def work(network, folder, **limits):
    reports = []
    result = build(network)(Task(folder, JobOptions(), Limits(**limits)), reports.append)
    return result, reports


def test_a_job_reports_what_it_knows(tmp_path, small_checkpoint):
    make_video(tmp_path / "a.mp4", frames=3).rename(tmp_path / UPLOAD)
    result, reports = work(Network(small_checkpoint, "cpu"), tmp_path)
    assert reports == [
        {"width": 96, "height": 64, "fps": 12.0, "total": 3},
        *({"frames": t} for t in (1, 2, 3)),
    ]
    assert result == {"frames": 3, "total": 3}


@pytest.mark.parametrize(
    ("content", "limits", "text"),
    [
        (b"\x00\x00\x00\x20ftypisom", {}, "this is not a video that can be read"),
        (None, {"frames": 2}, "the video has 3 frames; at most 2 are segmented"),
        (None, {"pixels": 1000}, "frames of 96 x 64 are too large"),
    ],
)
def test_what_a_user_reads_of_a_refused_video(tmp_path, small_checkpoint, content, limits, text):
    if content is None:
        make_video(tmp_path / "a.mp4", frames=3).rename(tmp_path / UPLOAD)
    else:
        (tmp_path / UPLOAD).write_bytes(content)
    with pytest.raises(UserError) as refused:
        work(Network(small_checkpoint, "cpu"), tmp_path, **limits)
    assert text in str(refused.value) and "/" not in str(refused.value)


def test_no_path_of_the_machine_leaves_it(tmp_path, caplog):
    (tmp_path / "bad.pt").write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match="the server's log says why"):
        work(Network(tmp_path / "bad.pt", "cpu"), tmp_path)
    assert "bad.pt" in caplog.text
