"""The HTTP door, on a running server."""

import io
import json
import socket
import threading
import time
import zipfile

import cv2
import numpy as np
import pytest
from PIL import Image
from serving import Server, make_video, start_server

from hmhi.media.masks import PALETTE


@pytest.fixture(scope="module")
def done(server, video):
    """A finished job, sent as the body of a request."""
    status, job = server.ask("/jobs?name=my%20walk.mp4", video.read_bytes())
    assert (status, job["name"]) == (201, "my walk.mp4")
    return server.wait(job["id"], "done", "failed")


def test_a_video_becomes_masks(server, done):
    assert (done["state"], done["frames"], done["width"], done["height"], done["fps"]) == (
        "done",
        24,
        96,
        64,
        12.0,
    )
    assert set(done["downloads"]) >= {"masks.zip", "coco.json"}
    status, content = server.ask(f"/jobs/{done['id']}/masks.zip")
    with zipfile.ZipFile(io.BytesIO(content)) as pack:
        assert pack.namelist() == [f"{t:05d}.png" for t in range(24)]
        assert Image.open(pack.open("00003.png")).size == (96, 64)
    status, document = server.ask(f"/jobs/{done['id']}/coco.json")
    assert (status, document["videos"][0]["length"]) == (200, 24)
    status, content = server.ask(f"/jobs/{done['id']}/view/23.jpg")
    assert Image.open(io.BytesIO(content)).size == (96, 3 * 64), "frame, probability and flow"
    assert server.ask(f"/jobs/{done['id']}/view/24.jpg")[0] == 404


def test_a_form_is_read_piece_by_piece(server, video):
    boundary = "xxBOUNDARYxx"
    fields = {"note": ("", b"ignored"), "file": ('; filename="../../etc/passwd.mp4"', video.read_bytes())}
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, (extra, content) in fields.items()
    )
    kind = f"multipart/form-data; boundary={boundary}"
    status, job = server.ask("/jobs", body + f"--{boundary}--\r\n".encode(), Content_Type=kind)
    assert (status, job["name"]) == (201, "../../etc/passwd.mp4"), "a name is shown, and never a path"
    assert server.wait(job["id"], "done", "failed")["state"] == "done"
    assert {path.name for path in server.folder.iterdir()} >= {job["id"]}
    assert server.ask("/jobs", b"--nothing", Content_Type=kind)[0] == 400


def left_behind(server, before):
    """Folders that are there and were not before, once uploads have been given up."""
    for _ in range(50):
        new = {path.name for path in server.folder.iterdir()} - before
        if not new:
            break
        time.sleep(0.1)
    return new


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"", 400, "no video was sent"),
        (b"short", 415, "not a video"),
        (b"#EXTM3U\nhttp://127.0.0.1/secret.ts\n", 415, "not a video"),
        (b"\x00" * 3_200_000, 413, "at most 3 MB"),
    ],
    ids=["empty", "short", "playlist", "large"],
)
def test_what_is_refused_at_once(server, body, status, text):
    before = {path.name for path in server.folder.iterdir()}
    code, answer = server.ask("/jobs", body)
    assert code == status and text in answer["error"]
    assert not left_behind(server, before)


def test_damaged_and_too_long_videos_fail_with_a_clear_word(server, video, tmp_path):
    head = video.read_bytes()[:600]
    long = make_video(tmp_path / "long.mp4", frames=201)
    for content, text in ((head, "not a video that can be read"), (long.read_bytes(), "at most 200")):
        _, job = server.ask("/jobs", content)
        job = server.wait(job["id"], "done", "failed")
        assert job["state"] == "failed" and text in job["error"]
        assert "/" not in job["error"], "no path of the server"
        assert server.ask(f"/jobs/{job['id']}/masks.zip")[0] == 404


def test_a_4k_frame_passes_and_a_larger_one_does_not(server, tmp_path):
    for size, state in (((2160, 3840), "done"), ((2400, 4096), "failed")):
        _, job = server.ask("/jobs", make_video(tmp_path / "large.mp4", 2, size).read_bytes())
        job = server.wait(job["id"], "done", "failed")
        assert job["state"] == state, job
    assert "megapixels" in job["error"]


def test_half_an_upload_leaves_nothing(server):
    before = {path.name for path in server.folder.iterdir()}
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            f"POST /jobs HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 100000\r\n\r\n".encode()
            + b"\x00\x00\x00\x20ftypisom" * 50
        )
        time.sleep(0.3)
    assert not left_behind(server, before)


def test_a_running_and_a_waiting_job_are_cancelled(server, long_video):
    content = long_video.read_bytes()
    _, first = server.ask("/jobs", content)
    _, second = server.ask("/jobs", content)
    running = server.wait(first["id"], "running")
    assert running["state"] == "running"
    assert server.ask(f"/jobs/{second['id']}")[1]["place"] == 1
    for job in (second, first):
        assert server.ask(f"/jobs/{job['id']}", method="DELETE")[0] == 204
    for job in (first, second):
        server.wait(job["id"], "done")
        assert server.ask(f"/jobs/{job['id']}")[0] == 404
        assert not (server.folder / job["id"]).exists()


def test_fifty_clients_poll(server, done):
    answers = []

    def poll():
        answers.extend(server.ask(f"/jobs/{done['id']}")[0] for _ in range(5))

    threads = [threading.Thread(target=poll) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 250


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/jobs/nothing", 404), ("/jobs/..%2F..%2Fetc", 404), ("/page/..%2Fapp.py", 404), ("/nothing", 404),
        ("/jobs/nothing/view/x.jpg", 400),
    ],
)  # fmt: skip
def test_what_is_not_there(server, path, status):
    code, answer = server.ask(path)
    assert code == status and set(answer) == {"error"}
    assert str(server.folder) not in answer["error"]


def test_foreign_requests_are_refused(server, video):
    assert server.ask("/settings", Host="evil.example")[0] == 421
    body = video.read_bytes()
    assert server.ask("/jobs", body, Origin="http://evil.example")[0] == 403
    assert server.ask("/jobs", body, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors")[0] == 403
    assert server.ask("/settings", Sec_Fetch_Site="same-site", Sec_Fetch_Mode="no-cors")[0] == 403
    assert server.ask("/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200, (
        "a link to the page"
    )
    assert server.ask("/settings", Origin=server.address, Sec_Fetch_Site="same-origin")[0] == 200


def test_the_door_describes_itself(server):
    status, document = server.ask("/openapi.json")
    assert status == 200
    assert set(document["paths"]) >= {"/jobs", "/jobs/{identity}", "/samples/{sample}"}
    assert server.ask("/jobs?image_size=77", b"x")[1]["error"].startswith("size must be one of")
    assert server.ask("/jobs?image_size=x", b"x")[1] == {"error": "not a valid value: image_size"}


@pytest.mark.slow
def test_a_token_and_a_restart(repository, small_checkpoint, video, long_video, tmp_path):
    """Finished jobs survive a restart, unfinished ones begin anew, half an upload goes."""
    options = ("--token", "open-sesame")
    process, address, line = start_server(repository, tmp_path / "jobs", small_checkpoint, *options)
    assert "?token=open-sesame" in line
    server, key = Server(address, tmp_path / "jobs"), {"Authorization": "Bearer open-sesame"}
    try:
        assert server.ask("/settings")[0] == 401
        assert server.ask("/settings", Authorization="Bearer open")[0] == 401
        assert server.ask("/settings", **key)[0] == 200
        _, first = server.ask("/jobs", video.read_bytes(), **key)
        _, second = server.ask("/jobs", long_video.read_bytes(), **key)
        while server.ask(f"/jobs/{second['id']}", **key)[1]["state"] != "running":
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    half = tmp_path / "jobs" / ("x" * 16)
    half.mkdir()
    (half / "upload.video").write_bytes(b"half")
    record = json.loads((tmp_path / "jobs" / second["id"] / "job.json").read_text())
    assert record["state"] == "queued"
    process, address, _ = start_server(repository, tmp_path / "jobs", small_checkpoint, *options)
    server = Server(address, tmp_path / "jobs")
    try:
        assert server.ask(f"/jobs/{first['id']}", **key)[1]["state"] == "done"
        assert not half.exists()
        while (state := server.ask(f"/jobs/{second['id']}", **key)[1]["state"]) in ("queued", "running"):
            time.sleep(0.2)
        assert state == "done"
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_the_overlay_is_a_video(server, done, tmp_path):
    if "overlay.mp4" not in done["downloads"]:
        pytest.skip("this machine has no encoder")
    _, content = server.ask(f"/jobs/{done['id']}/overlay.mp4")
    (tmp_path / "overlay.mp4").write_bytes(content)
    good, frame = cv2.VideoCapture(str(tmp_path / "overlay.mp4")).read()
    assert good and frame.shape == (64, 96, 3) and np.ptp(frame) > 0


def square_mask(size=(64, 96), ids=(1,)):
    """A PNG of ids, one square beside the other."""
    labels = np.zeros(size, np.uint8)
    for place, number in enumerate(ids):
        labels[16:48, 10 + 30 * place : 36 + 30 * place] = number
    image, stream = Image.fromarray(labels), io.BytesIO()
    image.putpalette(PALETTE)
    image.save(stream, "png")
    return stream.getvalue()


def test_painted_objects_are_followed_as_a_new_job(server, done):
    status, job = server.ask(f"/jobs/{done['id']}/objects?frame=20", square_mask(ids=(1, 3)))
    assert (status, job["frame"], job["name"]) == (201, 20, "my walk.mp4"), job
    job = server.wait(job["id"], "done", "failed")
    assert (job["state"], job["frames"]) == ("done", 24), job
    _, content = server.ask(f"/jobs/{job['id']}/masks.zip")
    with zipfile.ZipFile(io.BytesIO(content)) as pack:
        masks = {t: np.array(Image.open(pack.open(f"{t:05d}.png"))) for t in (0, 19, 20)}
    assert not masks[0].any() and not masks[19].any(), "background before the frame that was painted in"
    expected = np.zeros((64, 96), np.uint8)
    expected[16:48, 10:36], expected[16:48, 40:66] = 1, 3
    assert np.array_equal(masks[20], expected)
    _, content = server.ask(f"/jobs/{job['id']}/view/20.jpg")
    colours = np.array(Image.open(io.BytesIO(content)))[128:]  # of the likeliest object
    assert np.abs(colours[32, 20].astype(int) - (128, 0, 0)).max() < 8
    assert np.abs(colours[32, 50].astype(int) - (128, 128, 0)).max() < 8
    assert server.ask(f"/jobs/{job['id']}", method="DELETE")[0] == 204
    assert server.ask(f"/jobs/{done['id']}/view/3.jpg")[0] == 200, "the other job keeps its video"
    assert (server.folder / done["id"] / "upload.video").is_file()


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (square_mask(ids=()), 400, "the mask is empty"),
        (b"", 415, "not a mask"),
        (b"\xff\xd8\xff\xe0 a JPEG", 415, "not a mask"),
        (square_mask()[:30], 400, "no PNG that can be read"),
        (square_mask()[:-30], 400, "the mask: damaged image"),
        (square_mask(ids=(1, 11)), 400, "the mask has the id 11"),
        (square_mask((32, 96)), 400, "the mask is 96 x 32, but the frame 96 x 64"),
        (square_mask() + bytes(4_000_000), 413, "at most 4 MB"),
    ],
    ids=["empty", "nothing", "jpeg", "header", "damaged", "id", "size", "large"],
)
def test_masks_that_are_refused(server, done, body, status, text):
    before = {path.name for path in server.folder.iterdir()}
    code, answer = server.ask(f"/jobs/{done['id']}/objects?frame=0", body)
    assert code == status and text in answer["error"], answer
    assert "/" not in answer["error"] and not left_behind(server, before)


def test_a_box_becomes_the_mask_of_what_it_encloses(server, done):
    box = f"/jobs/{done['id']}/box?frame=0&"
    status, content = server.ask(box + "x=6&y=12&width=40&height=40", method="POST")
    assert status == 200
    inside = np.array(Image.open(io.BytesIO(content))) > 0
    square = np.zeros((64, 96), bool)
    square[16:48, 10:40] = True
    assert (inside & square).sum() / (inside | square).sum() > 0.9
    for area, text in (("x=90&y=0&width=500&height=2", "too small"), ("x=0&y=0&width=96&height=64", "whole")):
        status, answer = server.ask(f"{box}{area}", method="POST")
        assert status == 400 and text in answer["error"]
    assert server.ask(f"/jobs/{done['id']}/box?frame=99&x=0&y=0&width=9&height=9", method="POST")[0] == 404
