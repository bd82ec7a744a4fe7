"""Files of other projects are read past their foreign objects, of which none is made and nothing is called."""

import os
import subprocess
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from hmhi.models.foreign import read_foreign
from hmhi.models.key_maps import CheckpointError
from hmhi.models.weights import load_state


class ConfigDict(dict):
    """Like mmengine's: a dict with attributes."""


class HistoryBuffer:
    """Like mmengine's: holds arrays."""

    def __init__(self) -> None:
        self.log = np.arange(3.0)
        self.best = np.float64(0.5)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_metadata_of_a_package_that_is_not_installed(tmp_path: Path, monkeypatch, zipped: bool):
    module = types.ModuleType("mmengine_of_long_ago")
    for kind in (ConfigDict, HistoryBuffer):
        monkeypatch.setattr(kind, "__module__", module.__name__)
        setattr(module, kind.__name__, kind)
    path, weight = tmp_path / "segformer.pth", torch.randn(4, 3)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)
        meta = {
            "cfg": ConfigDict(lr=1),
            "hub": [HistoryBuffer()],
            "classes": ("road", "car"),
            "score": np.float32(1),
        }
        contents = {"meta": meta, "state_dict": {"backbone.x": weight}}
        torch.save(contents, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="refused"):
        load_state(path)
    loaded = load_state(path, foreign=True)
    assert torch.equal(loaded["state_dict"]["backbone.x"], weight)
    assert loaded["meta"]["classes"] == ("road", "car")
    assert not isinstance(loaded["meta"]["cfg"], dict)


class Attack:
    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def test_hostile_files_run_nothing(tmp_path: Path):
    canary, path = tmp_path / "executed", tmp_path / "evil.pth"
    code = f"open({str(canary)!r}, 'w')"
    weight = torch.ones(2)
    attacks = [
        (subprocess.check_call, ["touch", canary]), (Path.touch, canary), (getattr, Path, "touch"), (exec, code),
        (eval, code), (open, canary, "w"), (os.system, f"touch {canary}"), (torch.load, canary),
        (torch.hub.load, "a/b", "c"),
    ]  # fmt: skip
    for function, *arguments in attacks:
        for zipped in (True, False):
            contents = {"meta": Attack(function, *arguments), "state_dict": {"w": weight}}
            torch.save(contents, path, _use_new_zipfile_serialization=zipped)
            assert torch.equal(load_state(path, foreign=True)["state_dict"]["w"], weight)
            assert not canary.exists(), function


def test_tensors_of_every_kind(tmp_path: Path):
    """Views, parameters, shared storages and empty tensors come out as `torch.load` gives them."""
    base = torch.arange(12.0).reshape(3, 4)
    contents = OrderedDict(
        view=base.T[1:], parameter=torch.nn.Parameter(base[:1]), half=base.half(), count=torch.tensor(7),
        flags=base > 3, empty=torch.empty(0, 2), brain=base.bfloat16(),
    )  # fmt: skip
    for zipped in (True, False):
        torch.save(contents, tmp_path / "t.pth", _use_new_zipfile_serialization=zipped)
        loaded = read_foreign(tmp_path / "t.pth")
        for key, value in contents.items():
            assert loaded[key].dtype == value.dtype and torch.equal(loaded[key], value), key


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", bytes(1000), b"\x80\x02cos\nsystem\n"])
def test_damaged_files_are_one_named_error(tmp_path: Path, content: bytes):
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="broken"):
        load_state(path, foreign=True)
