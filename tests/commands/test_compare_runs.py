import json
import subprocess
import sys


def compare(repository, *runs):
    command = [sys.executable, repository / "tools" / "compare_runs.py", *runs]
    return subprocess.run(command, capture_output=True, text=True)


def test_seeds_are_joined_and_the_last_validation_counts(repository, tmp_path):
    for name, values in {"full/seed1": (0.2, 0.6), "full/seed2": (0.8,), "baseline/seed1": (0.5,)}.items():
        (tmp_path / name).mkdir(parents=True)
        lines = [{"step": 1, "train/loss": 3.0}, *({"val/sample/JF": value} for value in values)]
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = compare(repository, *sorted(tmp_path.glob("*/seed*")))
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert rows == [
        ["experiment", "runs", "sample/JF"],
        ["baseline", "1", "0.5000"],
        ["full", "2", "0.7000 +-0.1414"],
    ]


def test_a_run_without_a_validation_is_named(repository, tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/loss": 3.0}\n')
    done = compare(repository, tmp_path)
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path} has not been validated yet\n")
