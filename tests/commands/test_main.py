"""The console script `hmhi`."""

import subprocess
import sys

import pytest
from mask_trees import make_trees

from hmhi.commands.main import COMMANDS, main


def test_help_lists_the_commands_and_imports_nothing_heavy():
    code = (
        "import sys; from hmhi.commands.main import main\n"
        "try: main(['--help'])\n"
        "finally: assert not {'torch', 'cv2', 'numpy', 'omegaconf'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_every_command_explains_itself(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: hmhi {words[0] if len(words) > 1 else 'COMMAND'}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "COMMAND"),
        (["sgment"], "invalid choice: 'sgment'"),
        (["data", "fetch"], "invalid choice: 'fetch'"),
        (["evaluate", "--pred", "x"], "kind"),
        (["benchmark", "nothing"], "invalid choice: 'nothing'"),
    ],
    ids=str,
)
def test_unknown_commands_are_usage_errors(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_data_are_drawn_and_scored(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_trees(tmp_path, {"a": 3})
    assert main(["evaluate", "masks", "--pred", "pred", "--gt", "gt"]) == 0
    assert "J&F" in capsys.readouterr().out
    made = [
        "data",
        "synthetic",
        "--output",
        "data/Sample",
        "--videos",
        "1",
        "--frames",
        "2",
        "--size",
        "32",
        "64",
    ]
    assert main(made) == 0
    assert main(["data", "check"]) == 0
    assert "sample" in capsys.readouterr().out


def test_scoring_needs_no_torch(tmp_path):
    make_trees(tmp_path, {"a": 3})
    code = "import sys; sys.modules['torch'] = None; from hmhi.commands.main import main; sys.exit(main())"
    words = ["evaluate", "masks", "--pred", "pred", "--gt", "gt"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
