"""What `pip install` gives: a wheel that runs without the repository."""

import os
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import yaml
from PIL import Image

import hmhi
from hmhi.media.atomic import file_sha256


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_both_lists_of_dependencies_agree(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    lines = [
        line.split("#")[0].strip() for line in (repository / "requirements.txt").read_text().splitlines()
    ]
    assert [line for line in lines if line] == [*project["dependencies"], "-e ."]


def test_what_is_said_of_versions_and_weights_is_so(repository):
    cited = yaml.safe_load((repository / "CITATION.cff").read_text())
    assert cited["version"] == hmhi.__version__
    assert f"\n## {hmhi.__version__}" in (repository / "docs" / "CHANGELOG.md").read_text()
    rows = [line for line in (repository / "README.md").read_text().splitlines() if "| bundled," in line]
    for weights in (repository / "hmhi" / "weights").glob("*.safetensors"):
        (row,) = [row for row in rows if f"{weights.stem}.md" in row]
        assert f"| {weights.stat().st_size / 1e6:.1f} MB | {file_sha256(weights)[:8]} |" in row


@pytest.fixture(scope="module")
def installed(repository, tmp_path_factory):
    """The wheel in an otherwise empty folder, built from a copy, as the build leaves files in its tree."""
    root = tmp_path_factory.mktemp("package")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, root)
    shutil.copytree(repository / "hmhi", root / "hmhi", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", root / "dist", root)
    (wheel,) = (root / "dist").glob("hmhi-*.whl")
    run(*pip, "install", "--no-deps", "--no-index", "--no-compile", "--target", root / "site", wheel)
    return root / "site"


def test_a_wheel_segments_a_clip_from_anywhere(installed, tmp_path):
    for t in range(2):
        path = tmp_path / "clip" / f"{t}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(t).integers(0, 256, (32, 48, 3), dtype=np.uint8)).save(path)
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    hmhi = [sys.executable, installed / "bin" / "hmhi"]
    run(*hmhi, "segment", "--input", "clip", "--output", "out", cwd=tmp_path, env=environment)
    assert sorted(path.name for path in (tmp_path / "out/masks/clip").iterdir()) == ["0.png", "1.png"]
    assert (installed / "hmhi" / "py.typed").is_file()
    assert (installed / "hmhi" / "layers" / "topk_cpu.cpp").is_file()
    page = {path.name for path in (installed / "hmhi" / "serve" / "page").iterdir()}
    assert page == {"index.html", "api.html", "style.css", "app.js", "api.js", "painter.js", "player.js"}
    done = subprocess.run([*hmhi, "benchmark", "infer"], env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "clone the repository" in done.stderr and done.stderr.count("\n") == 1
