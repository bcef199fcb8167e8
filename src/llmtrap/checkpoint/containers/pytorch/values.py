"""What a pickle is made of when nothing of it is run: names, storages, tensors over them, and opaque values."""

from __future__ import annotations

from dataclasses import dataclass

STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL", "ComplexFloatStorage": "C64",
}  # fmt: skip
"""The dtype of each typed storage, by the name of its class."""

DTYPES = {
    "float64": "F64", "double": "F64", "float32": "F32", "float": "F32", "float16": "F16", "half": "F16",
    "bfloat16": "BF16", "int64": "I64", "long": "I64", "int32": "I32", "int": "I32", "int16": "I16", "short": "I16",
    "int8": "I8", "uint8": "U8", "bool": "BOOL", "uint16": "U16", "uint32": "U32", "uint64": "U64", "complex64": "C64",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ",
}  # fmt: skip
"""The safetensors name of each dtype of PyTorch."""


@dataclass(frozen=True)
class Name:
    """A class or a function that the pickle names. It is never looked up."""

    module: str
    attribute: str

    def __str__(self) -> str:
        """As Python writes it."""
        return f"{self.module}.{self.attribute}"


@dataclass(frozen=True)
class Opaque:
    """A value of a kind that holds no weights; nothing is kept of it but what it is."""

    what: str


@dataclass(frozen=True)
class Storage:
    """A run of numbers: `count` elements of `dtype` under a key; an untyped storage (`dtype` None) counts bytes.

    `first` is where it begins in the storage of that key, in elements: views of old files have their own.
    """

    key: str
    dtype: str | None
    count: int
    first: int = 0


@dataclass(frozen=True)
class Tensor:
    """A view of a storage: element (i, j, …) is number `offset` + i·strides[0] + j·strides[1] + … of it."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
