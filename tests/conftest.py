import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the working tree, where the user commands live."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real sequences and published results, which the repository does not contain."""
    folder = Path(os.environ.get("HMHI_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real sequences not found at {folder}; set HMHI_SHARED_DATA to run this test")
    return folder
