"""Read a model file of CTranslate2: named arrays in one binary file.

The file is little-endian: version of the format, name and revision of the specification of the model, number of
variables; for each variable its name, rank, dimensions, type, number of bytes, and values; then the aliases, names of
variables that share the values of another. A string is its length, including a final NUL, and its bytes.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np

VERSION = 6
TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


@dataclass(frozen=True)
class ModelFile:
    """The content of a model file.

    Args:
        specification: Name of the kind of model, for example `WhisperSpec`.
        revision: Revision of the specification.
        variables: Read-only arrays by name.
        aliases: Names of variables by the names that are aliases of them.
    """

    specification: str
    revision: int
    variables: dict[str, np.ndarray]
    aliases: dict[str, str]


class _Cursor:
    """A position in the bytes of a file."""

    def __init__(self, data: bytes, name: str):
        self.data, self.name, self.position = data, name, 0

    def take(self, count: int) -> memoryview:
        """Return the next bytes.

        Raises:
            ValueError: If the file ends before.
        """
        end = self.position + count
        if end > len(self.data):
            raise ValueError(
                f"{self.name}: truncated: {len(self.data):,} bytes, where at least {end:,} are expected; delete it "
                f"and download it again"
            )
        taken = memoryview(self.data)[self.position : end]
        self.position = end
        return taken

    def number(self, form: str) -> int:
        """Return the next unsigned number, of a format of `struct`."""
        return struct.unpack(f"<{form}", self.take(struct.calcsize(form)))[0]

    def text(self) -> str:
        """Return the next string.

        Raises:
            ValueError: If it is not a string that ends with NUL.
        """
        raw = bytes(self.take(self.number("H")))
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = ""
        if not text.endswith("\0"):
            raise ValueError(f"{self.name}: not a model file of CTranslate2: no string before byte {self.position:,}")
        return text[:-1]


def read_model_file(data: bytes, name: str = "model.bin") -> ModelFile:
    """Read a model file.

    Args:
        data: The bytes of the file.
        name: How errors name the file.

    Raises:
        ValueError: If the file has another version, is truncated, has bytes after its end, or contradicts itself.
    """
    cursor = _Cursor(data, name)
    version = cursor.number("I")
    if version != VERSION:
        raise ValueError(f"{name}: version {version} of CTranslate2's format; only version {VERSION} can be read")
    specification, revision = cursor.text(), cursor.number("I")
    variables: dict[str, np.ndarray] = {}
    for _ in range(cursor.number("I")):
        variable = cursor.text()
        if variable in variables:
            raise ValueError(f"{name}: two variables have the name {variable}")
        variables[variable] = _read_values(cursor, variable)
    aliases = {}
    for _ in range(cursor.number("I")):
        alias, target = cursor.text(), cursor.text()
        if alias in variables or target not in variables:
            raise ValueError(f"{name}: {alias} cannot be an alias of {target}")
        aliases[alias] = target
    if surplus := len(data) - cursor.position:
        raise ValueError(f"{name}: {surplus:,} bytes after the end of the model; delete it and download it again")
    return ModelFile(specification, revision, variables, aliases)


def _read_values(cursor: _Cursor, variable: str) -> np.ndarray:
    """Read the dimensions and the values of a variable.

    Raises:
        ValueError: If the type is unknown, or if the number of bytes is not that of the dimensions.
    """
    shape = [cursor.number("I") for _ in range(cursor.number("B"))]
    kind, size = cursor.number("B"), cursor.number("I")
    if kind not in TYPES:
        raise ValueError(f"{cursor.name}: {variable} has the unknown type {kind}")
    dtype = np.dtype(TYPES[kind]).newbyteorder("<")
    if size != math.prod(shape) * dtype.itemsize:
        raise ValueError(
            f"{cursor.name}: {variable} has {size:,} bytes, which is not the size of {shape} {dtype.name}"
        )
    return np.frombuffer(cursor.take(size), dtype).reshape(shape)
