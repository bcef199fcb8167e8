"""Quantised weights that no encoding reads: recognised by configuration and by names, and refused by name."""

from __future__ import annotations

from collections.abc import Mapping

from llmtrap.checkpoint.config import section
from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.tensors import Catalogue, Skipped, TensorEntry
from llmtrap.errors import UnsupportedError

READ = ("mxfp4", "fp8", "fbgemm_fp8")
"""Quantisation methods, as config.json names them, whose weights the encodings read."""

_READ_FORMATS = ("dense", "float-quantized", "naive-quantized")
_MARKS = (
    (("qweight", "qzeros"), "GPTQ or AWQ"),
    (("weight_packed", "weight_global_scale"), "compressed-tensors"),
    (("absmax", "quant_map", "nested_absmax", "SCB"), "bitsandbytes"),
    (("weight_scale_2",), "NVFP4 (ModelOpt)"),
    (("weight_format", "weight_zero_point"), "an integer quantisation"),
)
_INTEGERS = ("BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64")
_UNREAD_FLOATS = ("F4", "F6_E2M3", "F6_E3M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ")
_REMEDY = (
    "llmtrap reads F64, F32, F16, BF16, FP8 (plain, per tensor, per row or in blocks) and MXFP4 as GPT-OSS stores it: "
    "audit the checkpoint before it was quantised, or save a dequantised copy"
)


def refuse_unread(catalogue: Catalogue, free: Mapping[str, TensorEntry]) -> None:
    """Stop where the weights are quantised in a way that would be misread or left out.

    Args:
        catalogue: the whole checkpoint.
        free: the tensors that no encoding took.

    Raises:
        UnsupportedError: the quantisation, by its name.
    """
    for name, entry in catalogue.tensors.items():
        last = name.rsplit(".", 1)[-1]
        for suffixes, method in _MARKS:
            if last in suffixes:
                raise _unread(method, entry)
    for name, entry in free.items():
        packed = name.endswith((".weight", "_packed")) and entry.dtype in _INTEGERS and len(entry.shape) >= 2
        if packed or entry.dtype in _UNREAD_FLOATS:
            raise _unread(f"weights packed as {entry.dtype}", entry)
    for key in ("quantization_config", "compression_config"):
        settings = section(catalogue.config, key)
        stated = settings.get("quant_method")
        if isinstance(stated, str) and stated not in READ and not _readable(stated, settings.get("format")):
            problem = f"the quantisation {printable(stated)!r} is not one that llmtrap reads"
            raise UnsupportedError(problem, file="config.json", remedy=_REMEDY)


def leftover(entry: TensorEntry) -> Skipped:
    """Why a tensor that no encoding took is not audited."""
    if entry.dtype in _INTEGERS:
        return Skipped.of(entry, f"integer buffer ({entry.dtype})", "buffer")
    if entry.dtype == "C64":
        return Skipped.of(entry, "complex numbers (C64)", "unreadable")
    return Skipped.of(entry, f"{entry.dtype} without a weight that it belongs to", "unreadable")


def _readable(method: str, format_: object) -> bool:
    return method == "compressed-tensors" and format_ in _READ_FORMATS


def _unread(method: str, entry: TensorEntry) -> UnsupportedError:
    problem = f"{method}: a quantisation that llmtrap does not read"
    return UnsupportedError(problem, file=entry.span.file, tensor=printable(entry.name), remedy=_REMEDY)
