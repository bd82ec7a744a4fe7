"""The shell scripts and small tools as users type them."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from hmhi.models.weights import load_state


def run(*command, cwd=None, ok=True, **environment):
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True,
        env={**os.environ, "PYTHON": sys.executable, **environment},
    )  # fmt: skip
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done


def test_scripts_parse(repository):
    folder = repository / "scripts"
    scripts = [*folder.glob("*.sh"), *folder.glob("slurm/*"), repository / ".ci" / "run"]
    assert len(scripts) >= 6
    for script in scripts:
        run("bash", "-n", script)
    if shutil.which("shellcheck"):
        run("shellcheck", "-x", *scripts, cwd=repository)


def test_requirements_check(repository, tmp_path):
    check = repository / "scripts" / "check_requirements.py"
    run(sys.executable, check, "requirements.txt")
    (tmp_path / "wanted.txt").write_text("numpy>=99\nno-such-package\n# a comment\npillow\n")
    done = run(sys.executable, check, tmp_path / "wanted.txt", ok=False)
    assert len(done.stderr.splitlines()) == 2
    assert "numpy>=99 (found " in done.stderr
    assert "no-such-package (found None)" in done.stderr


def test_download_keeps_only_what_has_the_right_hash(repository, tmp_path):
    """With a curl of our own, which writes what it is told to."""
    scripts, tools = tmp_path / "repository" / "scripts", tmp_path / "bin"
    scripts.mkdir(parents=True)
    for name in ("download_weights.sh", "environment.sh"):
        shutil.copy(repository / "scripts" / name, scripts)
    tools.mkdir()
    (tools / "curl").write_text(
        '#!/bin/sh\nwhile [ "$1" != --output ]; do shift; done\nprintf weights > "$2"\n'
    )
    (tools / "curl").chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    folder = scripts.parent / "checkpoint" / "pretrained"
    script = scripts / "download_weights.sh"
    done = run("bash", script, "resnet50", ok=False, PATH=path)
    assert "should begin with 0676ba61; nothing was kept" in done.stderr
    assert not [file for file in folder.rglob("*") if file.is_file()]
    done = run("bash", script, "swin_tiny", PATH=path)  # whose hash nobody publishes
    assert (folder / "swin" / "swin_tiny_patch4_window7_224.pth").read_text() == "weights"
    assert "is there already" in run("bash", script, "swin_tiny", PATH=path).stdout
    done = run("bash", script, "mit_b9", ok=False, PATH=path)
    assert "no mit_b9; there are: mit_b0 mit_b1" in done.stderr


def test_infer_without_arguments_says_what_is_missing(repository):
    if (repository / "data" / "DAVIS-16").exists():
        pytest.skip("DAVIS-16 is here, so nothing is missing")
    done = run("bash", repository / "scripts" / "infer.sh", ok=False)
    assert done.returncode == 2
    assert "docs/DATA.md" in done.stderr


def test_infer_writes_below_outputs_whatever_the_input_is_called(repository):
    names = {"...mp4": "videos", "..mp4": "videos", "a/b c.mp4": "b c", "x/*.mp4": "videos", "--.-n.mp4": "n"}
    for name, folder in names.items():
        shown = run("bash", repository / "scripts" / "infer.sh", name, PYTHON="echo").stdout
        assert shown.rstrip().endswith(f"--output {repository}/outputs/{folder}"), shown


def test_sample_set_baselines_and_strip(repository, tmp_path):
    tools, sample = repository / "tools", tmp_path / "Sample"
    make = [sys.executable, tools / "make_synthetic.py", "--output", sample, "--split", "val", "--videos", 2]
    run(*make, "--frames", 3, "--size", 64, 96)
    files = sorted(path for path in sample.rglob("*") if path.is_file())
    assert len(files) == 2 * 3 * 3 + 1  # and how the flow was made
    stamps = [path.stat().st_mtime_ns for path in files]
    run(*make, "--frames", 3, "--size", 64, 96)
    assert stamps == [path.stat().st_mtime_ns for path in files], "a second run keeps what is done"

    output = tmp_path / "baselines"
    run(sys.executable, tools / "make_baselines.py", "--flow", sample / "Flows" / "val", "--output", output)
    everything = sorted((output / "all-foreground").rglob("*.png"))
    assert len(everything) == 6
    assert all(np.array(Image.open(path)).all() for path in everything)
    moving = [np.array(Image.open(path)).mean() for path in sorted((output / "flow").rglob("*.png"))]
    assert any(0 < share < 1 for share in moving)

    truth = sample / "Annotations" / "val"
    follow = ("--frames", sample / "Images" / "val", "--first-masks", truth, "--output", output)
    run(sys.executable, tools / "make_baselines.py", *follow)
    for method in ("copied", "followed"):
        written = sorted((output / method).rglob("*.png"))
        assert len(written) == 6
        first = next(path for path in written if path.stem == "00000")
        given = np.array(Image.open(truth / first.relative_to(output / method))) > 0
        assert ((np.array(Image.open(first)) > 0) == given).all()

    strip = tmp_path / "strip.png"
    run(
        sys.executable, tools / "draw_strip.py", "--images", sample / "Images" / "val", "--flows",
        sample / "Flows" / "val", "--gt", sample / "Annotations" / "val", "--pred", output / "flow",
        "--output", strip,
    )  # fmt: skip
    assert Image.open(strip).size == (5 * 240, 2 * 160)


def test_small_tools_name_what_is_wrong(repository, tmp_path):
    tools = repository / "tools"
    done = run(
        sys.executable, tools / "make_baselines.py", "--flow", tmp_path / "no", "--output", tmp_path, ok=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: input not found: {tmp_path / 'no'};")
    make = [sys.executable, tools / "make_synthetic.py", "--output", tmp_path / "a", "--size", 8, 8]
    done = run(*make, ok=False)
    assert done.returncode == 2
    assert "32" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("edition", "last"),
    [("1", "runs/embedded_finish"), ("2", "runs/embedded2_finish"), ("hmmn", "runs/hmmn_small_240")],
)
def test_weights_in_the_box_are_rebuilt_by_one_command(repository, tmp_path, edition, last):
    """All stages in miniature, in a clone."""
    clone, output = tmp_path / "clone", tmp_path / "weights.safetensors"
    run("git", "clone", "-q", repository, clone)
    small = ["data.synthetic.videos=4", "data.synthetic.val_videos=1", "data.synthetic.size=[64,96]"]
    small += ["data.image_size=[64,64]", "train.epochs=1", "data.workers=0"]
    run("bash", clone / "scripts" / "embedded.sh", output, *small, PYTHONPATH=str(clone), EDITION=edition)
    contents = load_state(output)
    assert contents["config"]["train"]["output"] == last
    assert str(clone) not in json.dumps([contents["config"], contents["environment"]])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_quickstart_from_a_path_with_spaces(repository, tmp_path):
    """The whole first command, and a second time: a trained model that beats both trivial methods."""
    clone = tmp_path / "a clone"
    run("git", "clone", "-q", repository, clone)
    quickstart = ["bash", clone / "scripts" / "quickstart.sh"]
    done = run(*quickstart, PYTHONPATH=str(clone))
    assert "done in" in done.stdout
    scores = json.loads((clone / "outputs" / "quickstart" / "scores.json").read_text())["methods"]
    ours = scores["hmhi-net"]["metrics"]["JF_mean"]
    assert ours > scores["all-foreground"]["metrics"]["JF_mean"] + 0.1
    assert ours > scores["flow-magnitude"]["metrics"]["JF_mean"] + 0.1
    checkpoint = clone / "runs" / "quickstart_finetune" / "ckpt" / "best.pt"
    stamp = checkpoint.stat().st_mtime_ns
    run(*quickstart, PYTHONPATH=str(clone))
    assert checkpoint.stat().st_mtime_ns == stamp
