"""Imports go only downward, and evaluation runs without torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "hmhi"

# room -> the rooms whose modules it may import, itself always included
DOORS: dict[str, set[str]] = {
    "version": set(),
    "errors": set(),
    "settings": {"errors"},
    "config": {"settings", "errors"},
    "media": {"config", "errors"},
    "layers": {"errors"},
    "flow": {"media", "config", "errors"},
    "memory": {"layers", "errors"},
    "evaluation": {"media", "config", "errors"},
    "models": {"layers", "memory", "config", "errors"},
    "exports": {"media", "errors", "version"},
    "synthetic": {"flow", "media", "config", "errors"},
    "data": {"synthetic", "flow", "layers", "media", "config", "errors"},
    "viz": {"layers", "models", "media", "errors"},
    "runtime": {"models", "memory", "layers", "config", "errors", "version"},
    "training": {
        "runtime", "viz", "data", "models", "synthetic", "evaluation", "memory", "flow", "layers", "media", "config",
        "errors", "version",
    },
    "inference": {
        "runtime", "viz", "data", "models", "synthetic", "evaluation", "memory", "flow", "layers", "media", "config",
        "errors", "version",
    },
    "scale": {"runtime", "inference", "media", "errors"},
    "serve": {"runtime", "inference", "synthetic", "media", "errors", "version"},
    "reproduction": {"runtime", "models", "media", "config", "errors"},
    "commands": {
        "__init__", "reproduction", "training", "inference", "serve", "scale", "exports", "runtime", "viz", "data",
        "models", "synthetic", "evaluation", "flow", "media", "config", "errors", "version",
    },
    "__init__": {"config", "errors", "version", "models", "inference", "evaluation"},
}  # fmt: skip


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write it from hmhi"
            names = [node.module or ""]
            if node.module == "hmhi":
                names = [f"hmhi.{alias.name}" for alias in node.names]
            assert all(alias.name != "*" for alias in node.names), f"{path}: star import"
        rooms |= {name.split(".")[1] for name in names if name.startswith("hmhi.")}
    return rooms


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downward(path: Path):
    room = room_of(path)
    assert room in DOORS, f"{path}: {room} has no entry in DOORS"
    beyond = imported_rooms(path) - DOORS[room] - {room}
    assert not beyond, f"{path} may not import hmhi.{', hmhi.'.join(sorted(beyond))}"


def test_evaluation_runs_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import pkgutil, importlib, hmhi.evaluation as package\n"
        "names = [m.name for m in pkgutil.iter_modules(package.__path__)]\n"
        "[importlib.import_module('hmhi.evaluation.' + name) for name in names]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
