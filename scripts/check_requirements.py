"""Exit with 0 if the running interpreter satisfies a requirements file, else name what is missing.

Runs before anything is installed, so it needs the standard library and pip's own copy of `packaging` alone.
"""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

try:
    from packaging.requirements import Requirement
except ImportError:
    from pip._vendor.packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent


def missing(file: Path) -> list[str]:
    """Requirements of a file, and of those that it includes, that are not met."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("-r "):
            found += missing(file.parent / line[3:])
        elif line == "-e .":
            found += [] if installed_from_here() else [line]
        elif line:
            requirement = Requirement(line)
            try:
                version = importlib.metadata.version(requirement.name)
            except importlib.metadata.PackageNotFoundError:
                version = None
            if version is None or not requirement.specifier.contains(version, prereleases=True):
                found.append(f"{line} (found {version})")
    return found


def installed_from_here() -> bool:
    """Whether `import hmhi` outside this folder gives this working tree."""
    code = "import hmhi; print(hmhi.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True)
    return done.returncode == 0 and Path(done.stdout.strip()).resolve().is_relative_to(ROOT)


if __name__ == "__main__":
    lacking = missing(ROOT / sys.argv[1])
    print("\n".join(lacking), file=sys.stderr)
    sys.exit(1 if lacking else 0)
