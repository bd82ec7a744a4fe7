import pytest
from serving import Server, make_video, start_server
from small_hmmn import save_small_hmmn
from small_model import save_small_checkpoint

for package in ("fastapi", "uvicorn", "python_multipart"):
    pytest.importorskip(package, reason=f"{package} (extra web) is not installed")


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory):
    return save_small_checkpoint(tmp_path_factory.mktemp("model") / "small.pt")


@pytest.fixture(scope="session")
def server(repository, small_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    limits = ("--upload-mb", "3", "--frames", "200", "--seconds", "60")
    follower = save_small_hmmn(tmp_path_factory.mktemp("model") / "hmmn.pt", ["infer.short_side=64"])
    options = (*limits, "--objects-checkpoint", str(follower))
    process, address, _ = start_server(repository, folder, small_checkpoint, *options)
    yield Server(address, folder)
    process.terminate()
    process.wait(timeout=30)


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("video") / "walk.mp4")


@pytest.fixture(scope="session")
def long_video(tmp_path_factory):
    """Long enough to be caught at work."""
    return make_video(tmp_path_factory.mktemp("video") / "long walk.avi", frames=150)
