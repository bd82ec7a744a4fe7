from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox import Warm


@pytest.fixture(scope="session")
def warm(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    process = Warm(repository, tmp_path_factory.mktemp("warm"))
    yield process
    process.close()
