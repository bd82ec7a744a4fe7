"""tools/reproduce.py as users type it, on a table in miniature."""

import json
import os
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from hmhi.commands.reproduce import main
from hmhi.config import load_config
from hmhi.errors import UserError
from hmhi.reproduction.plan import Planner, Step, run_step
from hmhi.reproduction.tables import read_paper

CONFIG = """
model: {backbone: mit_b0, flow_adapters: false, memory_frames: 2, ffn_channels: 16, decoder_channels: 8}
data: {train: [sample], val: [sample], image_size: [64, 64], clip_frames: 2, workers: 0}
train: {epochs: 1, batch_size: 2, log_every: 1}
"""
TABLE = """
paper: A paper
recipes:
  small:
    prepare:
      - make_synthetic.py --output {output}/data/Sample --split train --videos 2 --frames 2 --size 64 64
      - make_synthetic.py --output {output}/data/Sample --split val --videos 2 --frames 3 --size 64 64 --seed 9
    train:
      first: {config: CONFIG, set: ["data.root={output}/data"]}
      second: {config: CONFIG, start: first, set: ["data.root={output}/data"]}
    test:
      sample: {weights: second, kind: masks, protocol: all-frames, root: "{output}/data"}
networks:
  none: ["model.memory_stages=[]", model.high_to_shallow=none, model.shallow_to_high=none]
  one: ["model.memory_stages=[2]", model.high_to_shallow=none, model.shallow_to_high=none]
tables:
  3:
    caption: memory
    recipe: small
    rows:
      baseline: {network: none, published: {sample/JF: 50.0, parameters: 36.7}, note: as it is}
      layer = 2: {network: one, published: {sample/JF: 60.0}}
      layer = 2, T = 1: {network: one, infer: [model.memory_frames=1], published: {sample/JF: 55.0}}
"""


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG)
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "tiny.yaml").write_text(TABLE.replace("CONFIG", str(config)))
    return folder


def arguments(tables: Path, *more: str) -> list[str]:
    output = str(tables.parent / "out")
    return ["--tables", str(tables), "--paper", "tiny", "--table", "3", "--output", output, *more]


def test_list_and_dry_run(tables: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--list", "--tables", str(tables)]) == 0
    assert (
        "  table 3: memory\n    baseline (as it is)\n    layer = 2\n    layer = 2, T = 1\n"
        in capsys.readouterr().out
    )
    assert main(arguments(tables, "--row", "layer = 2", "--seeds", "2", "--dry-run", "train.lr=1")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("[to do]")] == [
        "[to do] prepare 1", "[to do] prepare 2",
        *(f"[to do] one/seed{seed}/{step}" for seed in (42, 43)
          for step in ("first", "second", "segment sample", "score sample")),
    ]  # fmt: skip
    second = lines[lines.index("[to do] one/seed43/second") + 1]
    assert "train.lr=1" in second and "train.seed=43" in second
    assert "one/seed43/first/ckpt/best.pt" in second and "train.pretrained=null" in second
    assert not (tables.parent / "out").exists()


def test_settings_on_the_command_line_stand_above_the_table(tables: Path, capsys: pytest.CaptureFixture[str]):
    """Above ``scratch`` as well; but a stage that starts from another one reads no backbone weights."""
    path = tables / "tiny.yaml"
    path.write_text(path.read_text().replace("first: {", "first: {scratch: true, ").replace(
        "one: [", "one: [train.pretrained=mine.pth, "
    ))  # fmt: skip

    def pretrained(*more: str) -> list[str | None]:
        assert main(arguments(tables, "--row", "layer = 2", "--dry-run", *more)) == 0
        commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines() if "train.sh" in line]
        return [load_config(command[2], [word for word in command if "=" in word]).train.pretrained
                for command in commands]  # fmt: skip

    assert pretrained() == [None, None]
    assert pretrained("train.pretrained=package") == ["package", None]


def test_calls_for_single_rows_fill_one_table(tables: Path, capsys: pytest.CaptureFixture[str]):
    """Every row and seed that is done with the same settings is in the file; a row without results has dashes."""
    root = tables.parent / "out" / "tiny"
    paper = read_paper(tables / "tiny.yaml")

    def finish(row: str, seed: int, score: float) -> None:
        planner = Planner(root, paper.recipes["small"], ())
        network = paper.tables[3].rows[row].network
        for step in planner.steps(network, paper.networks[network], seed):
            step.folder.mkdir(parents=True, exist_ok=True)
            step.record.write_text(json.dumps({"digest": step.digest, "seconds": 1.0}))
        folder = planner.test_folder(network, seed, "sample")
        metrics = {f"{measure}_mean": score for measure in ("JF", "J", "F")}
        (folder / "scores.json").write_text(json.dumps({"metrics": metrics}))
        videos = [{"frames": 3, "seconds": {"network": 1.5}}]
        (folder / "infer.json").write_text(json.dumps({"sequences": videos}))

    finish("baseline", 42, 0.5)
    finish("baseline", 43, 0.6)
    assert main(arguments(tables, "--row", "baseline")) == 0
    finish("layer = 2", 42, 0.7)
    assert main(arguments(tables, "--row", "layer = 2")) == 0
    rows = json.loads((root / "table3.json").read_text())["rows"]
    assert {name: row["sample/JF"]["seeds"] for name, row in rows.items()} == {
        "baseline": pytest.approx([50.0, 60.0]), "layer = 2": pytest.approx([70.0]),
    }  # fmt: skip
    assert "| baseline | sample/JF | 50.0 | 55.0 +- 7.1 | +5.0 |" in capsys.readouterr().out


def test_a_step_with_other_settings_sets_aside_what_the_old_ones_led_to(tmp_path: Path):
    """Whether it had ended or not; settings on which no result depends change nothing."""
    folder = tmp_path / "run"

    def step(words: str, *more: str) -> Step:
        code = f"import sys; open({str(folder / 'result')!r}, 'a').write({words!r}); sys.exit({words!r} == 'bad')"
        return Step("net/train", ("python", "-c", code, *more), folder, (), tmp_path, owns_folder=True)

    with pytest.raises(UserError):
        run_step(step("bad"), tmp_path)
    run_step(step("good"), tmp_path)
    assert step("good", "data.workers=3").done and not step("good", "train.lr=1").done
    run_step(step("better"), tmp_path)
    assert [(tmp_path / name / "result").read_text() for name in ("run.old1", "run.old2", "run")] == [
        "bad", "good", "better",
    ]  # fmt: skip


def test_rows_that_differ_in_use_share_a_training(tables: Path, capsys: pytest.CaptureFixture[str]):
    assert main(arguments(tables, "--row", "layer = 2", "--row", "layer = 2, T = 1", "--dry-run")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("[to do] one")] == [
        f"[to do] one/seed42/{step}"
        for step in ("first", "second", "segment sample", "score sample",
                     "segment sample memory_frames-1", "score sample memory_frames-1")
    ]  # fmt: skip
    usual, short = (
        lines[lines.index(f"[to do] one/seed42/segment sample{end}") + 1] for end in ("", " memory_frames-1")
    )
    assert "model.memory_frames=1" in short and "model.memory_frames=1" not in usual
    assert "sample_masks_second_memory_frames-1" in short


def test_what_a_server_scores_is_segmented_alone(tables: Path, capsys: pytest.CaptureFixture[str]):
    path = tables / "tiny.yaml"
    path.write_text(
        path.read_text().replace("kind: masks, protocol: all-frames", "kind: server, pred: masks")
    )
    assert main(arguments(tables, "--row", "baseline", "--dry-run")) == 0
    out = capsys.readouterr().out
    assert "segment sample" in out and "score sample" not in out and "--save-prob" not in out


def test_costs(tables: Path, capsys: pytest.CaptureFixture[str]):
    assert main(arguments(tables, "--row", "baseline", "--costs")) == 0
    out = capsys.readouterr().out
    assert "| baseline | parameters as published, M | 36.7 |" in out
    assert "| baseline | GFLOP, 64 x 64 | - |" in out


def test_what_is_missing_is_said(tables: Path, capsys: pytest.CaptureFixture[str]):
    for wrong, message in (
        (["--tables", str(tables)], "--list shows them all"),
        (arguments(tables, "--row", "layer 2"), "no row 'layer 2'; there are 'baseline', 'layer = 2'"),
        (arguments(tables, "--budget", "small"), "no recipe small-small"),
        (arguments(tables, "train.lr"), "train.lr"),
    ):
        assert main(wrong) == 2
        error = capsys.readouterr().err
        assert message in error and len(error.splitlines()) == 1


@pytest.mark.slow
def test_a_table_is_filled_and_continued(repository: Path, tables: Path):
    command = [sys.executable, repository / "tools" / "reproduce.py"]
    command += arguments(tables, "--row", "layer = 2", "--seeds", "2")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}

    def run(*more: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([*command, *more], env=environment, capture_output=True, text=True)

    out = tables.parent / "out" / "tiny"
    blocked = out / "one" / "seed43" / "second" / "ckpt"  # a file in the place of a folder
    blocked.parent.mkdir(parents=True)
    blocked.touch()
    failed = run()
    assert failed.returncode == 2
    assert "one/seed43/second ended with exit code" in failed.stderr
    done = out / "one" / "seed42" / "first" / "ckpt" / "best.pt"
    before = done.stat().st_mtime_ns

    blocked.unlink()
    finished = run()
    assert finished.returncode == 0, finished.stderr
    assert done.stat().st_mtime_ns == before
    scores = [
        100 * json.loads(path.read_text())["metrics"]["JF_mean"]
        for path in sorted(out.glob("one/seed*/sample_masks_second/scores.json"))
    ]
    cell = json.loads((out / "table3.json").read_text())["rows"]["layer = 2"]["sample/JF"]
    assert cell["seeds"] == pytest.approx(scores) and len(scores) == 2
    assert cell["difference"] == pytest.approx(statistics.mean(scores) - 60.0)
    assert cell["deviation"] == pytest.approx(statistics.stdev(scores))
    assert "| layer = 2 | sample/JF | 60.0 | " in finished.stdout
    assert "| layer = 2 | fps | - | " in finished.stdout
    assert "[to do]" not in run("--dry-run").stdout
    assert "[to do] one/seed42/score sample" in run("--dry-run", "train.lr=1e-3").stdout
