import pytest
from mask_trees import make_trees

from hmhi.commands.evaluate import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pred", "nowhere", "--gt", "gt"], "folder of predictions not found: nowhere"),
        (["--pred", "pred", "--gt", "nowhere"], "folder of annotations not found: nowhere"),
        (["--pred", "pred"], "--gt is missing"),
        (
            ["--pred", "pred", "--gt", "gt", "--protocol", "davis"],
            "unknown protocol 'davis'; known are davis16",
        ),
        (["--pred", "pred", "--gt", "gt", "--dataset", "x"], "data set 'x'"),
        (["--pred", "pred", "--pred", "x/pred", "--gt", "gt"], "two predictions are called 'pred'"),
        (["--pred", "pred", "--gt", "gt", "--sequences", "x.txt"], "list of sequences not found: x.txt"),
        (["--pred", "pred", "--gt", "gt", "--json", "."], "a folder where a file is due"),
    ],
)
def test_user_errors_are_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    make_trees(tmp_path, {"a": 3})
    monkeypatch.chdir(tmp_path)
    assert main(["masks", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ") and len(error.splitlines()) == 1


def test_a_folder_may_hold_an_equals_sign(tmp_path, monkeypatch, capsys):
    make_trees(tmp_path, {"a": 3})
    (tmp_path / "pred").rename(tmp_path / "lr=1")
    monkeypatch.chdir(tmp_path)
    assert main(["masks", "--pred", "lr=1", "--gt", "gt"]) == 0
    assert "3 frames" not in capsys.readouterr().out
    assert main(["masks", "--pred", "lr=1", "--pred", "again=lr=1", "--gt", "gt"]) == 0
    out = capsys.readouterr().out
    assert "lr=1: 1 frames" in out and "again: 1 frames" in out


@pytest.mark.parametrize("jobs", ["0", "-2", "many"])
def test_jobs_must_be_positive(jobs, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["masks", "--jobs", jobs])
    assert stop.value.code == 2
    assert "--jobs" in capsys.readouterr().err
