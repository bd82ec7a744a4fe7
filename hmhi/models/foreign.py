"""Tensors from torch files whose metadata holds objects of other packages, without making those objects.

mmengine writes its message hub and its config into a checkpoint, beside the tensors; torch's restricted unpickler
refuses such a file. The reader here knows four names: ordered dict, tensor, parameter, storage. Every other name gets
a class without behaviour, so that nothing that a file names is imported or called.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # begins torch files in the format before 1.6
STORAGES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip


class Inert:
    """Stands for an object that is not made: takes whatever its class would take, and drops it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        """Itself, where a function made the object."""
        return self

    def append(self, item: Any) -> None:
        """As of a list."""

    def extend(self, items: Any) -> None:
        """As of a list."""

    def add(self, item: Any) -> None:
        """As of a set."""


def read_foreign(path: Path) -> Any:
    """Read a torch file, with `Inert` objects in the place of all that is no tensor or plain container.

    Raises:
        ValueError: It is no torch file, or a damaged one.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _read_zip(archive)
        with path.open("rb") as file:
            return _read_legacy(file)
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _read_zip(archive: zipfile.ZipFile) -> Any:
    name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
    folder = name.removesuffix("data.pkl")

    def storage(dtype: torch.dtype, key: str, size: int) -> Tensor:
        content = bytearray(archive.read(f"{folder}data/{key}"))
        return torch.frombuffer(content, dtype=dtype) if size else torch.empty(0, dtype=dtype)

    with archive.open(name) as stream:
        return _Reader(stream, storage).load()


def _read_legacy(file: IO[bytes]) -> Any:
    storages: dict[str, Tensor] = {}

    def storage(dtype: torch.dtype, key: str, size: int) -> Tensor:
        return storages.setdefault(key, torch.empty(size, dtype=dtype))

    magic, _version, _system, contents, keys = (_Reader(file, storage).load() for _ in range(5))
    if magic != LEGACY_MAGIC:
        raise ValueError("no torch file")
    if set(keys) != set(storages):
        raise ValueError("some storages are missing")
    for key in keys:
        target = storages[key]
        if int.from_bytes(file.read(8), "little") != len(target):
            raise ValueError(f"storage {key} has another size")
        content = file.read(target.nbytes)
        if len(content) != target.nbytes:
            raise ValueError(f"storage {key} is cut off")
        if content:
            target.copy_(torch.frombuffer(bytearray(content), dtype=target.dtype))
    return contents


class _Reader(pickle.Unpickler):
    """Python's unpickler with `find_class` as its only door to what may be called."""

    def __init__(self, stream: IO[bytes], storage: Callable[[torch.dtype, str, int], Tensor]) -> None:
        super().__init__(stream, encoding="utf-8")
        self._storage = storage
        self._known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda values, offset, size, stride, *_: torch.as_strided(
                values, size, stride, offset
            ),
            ("torch._utils", "_rebuild_parameter"): lambda values, *_: values,
        }

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        key = (module, name)
        if key not in self._known:
            self._known[key] = type(name, (Inert,), {})
        return self._known[key]

    def persistent_load(self, identity: Any) -> Tensor:
        _kind, dtype, key, _device, size, *_ = identity
        return self._storage(dtype, key, size)
