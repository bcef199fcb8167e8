"""Quantised weights that no encoding reads: recognised by configuration and by names, and refused by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llmtrap.checkpoint.config import section
from llmtrap.checkpoint.encodings.base import StoredTensor
from llmtrap.checkpoint.encodings.siblings import Modules, unknown_scale
from llmtrap.checkpoint.names import printable
from llmtrap.checkpoint.tensors import Catalogue, Skipped, TensorEntry
from llmtrap.errors import UnsupportedError

READ = (
    "awq", "auto-round", "bitsandbytes", "bitsandbytes_4bit", "bitsandbytes_8bit", "compressed-tensors", "fbgemm_fp8",
    "fp8", "gptq", "hqq", "metal", "mlx", "modelopt", "modelopt_fp4", "mxfp4", "mxfp8", "quanto", "torchao",
)  # fmt: skip
"""Quantisation methods, as config.json names them, whose weights the encodings read: the tensors then decide."""

_CODE_BOOKS = "its code books are decoded by CUDA kernels alone"
_PERMUTED = "its words are permuted for one kind of GPU kernel"
_REFUSED: dict[str, tuple[str, str]] = {
    "aqlm": ("AQLM", _CODE_BOOKS),
    "awq_marlin": ("AWQ for Marlin", _PERMUTED),
    "bitblas": ("BitBLAS", _PERMUTED),
    "bitnet": ("BitNet", "weights of three values say nothing about α or traps"),
    "eetq": ("EETQ", _PERMUTED),
    "exl2": ("EXL2", "its rows are permuted and of mixed width, and its project has ended"),
    "exl3": ("EXL3", "its trellis is stored rotated and decoded by CUDA kernels alone"),
    "fouroversix": ("Four Over Six", "its NVFP4 scales are laid out for GPU kernels"),
    "fp_quant": ("FP-Quant", "its weights are stored rotated (Hadamard)"),
    "gptq_marlin": ("GPTQ for Marlin", _PERMUTED),
    "gptq_marlin_24": ("GPTQ for Marlin, 2:4 sparse", _PERMUTED),
    "higgs": ("HIGGS", "its weights are stored rotated (Hadamard), on code books"),
    "marlin": ("Marlin", _PERMUTED),
    "nvfp4": ("transformers' own NVFP4", "its scales are swizzled into tiles for GPU kernels"),
    "qqq": ("QQQ", _PERMUTED),
    "quark": ("AMD Quark", "its packings differ by exporter and version"),
    "quip": ("QuIP#", "its weights are stored rotated (Hadamard), on code books"),
    "sinq": ("SINQ", "its second scale, over the columns, changes α"),
    "spqr": ("SpQR", "its outliers lie in a sparse matrix that GPU kernels add"),
    "vptq": ("VPTQ", _CODE_BOOKS),
}
"""Methods that are known and not read: how they are called, and why."""

_MARKS: dict[str, str] = {
    "trellis": "exl3", "suh": "exl3", "svh": "exl3",
    "q_weight": "exl2", "q_scale_max": "exl2", "q_invperm": "exl2",
    "codebooks": "aqlm",
    "centroids": "vptq", "res_centroids": "vptq",
    "dense_weights": "spqr", "row_offsets": "spqr", "col_vals": "spqr",
    "B_24": "gptq_marlin_24", "B_meta": "gptq_marlin_24",
    "Qidxs": "quip", "SU": "quip", "SV": "quip",
    "forward_hadamard_matrix": "fp_quant", "backward_hadamard_matrix": "fp_quant",
    "tables2": "higgs",
}  # fmt: skip
"""Last parts of tensor names that only one unread method has."""

_LEFT: dict[str, str] = {
    "qweight": "GPTQ or AWQ in a packing of another kind",
    "qzeros": "GPTQ or AWQ in a packing of another kind",
    "weight_packed": "a packing of compressed-tensors",
    "absmax": "bitsandbytes, incomplete",
    "quant_map": "bitsandbytes, incomplete",
    "nested_absmax": "bitsandbytes, incomplete",
    "SCB": "bitsandbytes, incomplete",
    "W_q": "HQQ, incomplete",
    "_weight_qdata": "torchao, of another kind or without its metadata",
    "_data": "optimum-quanto, incomplete",
    "_shift": "optimum-quanto, incomplete",
    "weight_zero_point": "zero points of a weight that is read without any",
    "bitmask": "2:4 sparse weights of compressed-tensors",
}
"""Last parts of names that an encoding takes where it can: what it left is in a form that it does not read."""

_INTEGERS = ("BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64")
_UNREAD_FLOATS = ("F4", "F6_E2M3", "F6_E3M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ")
_REMEDY = "Audit the checkpoint before it was quantised, or save a dequantised copy (BF16)"
_MASK = "_mask"
_PRUNED = "Call torch.nn.utils.prune.remove(module, 'weight') on every pruned module, and save the model again"
_FEW = 64  # integers that cannot be a weight matrix


def refuse_stated(catalogue: Catalogue) -> None:
    """Stop where the configuration or a tensor's name tells of a quantisation, or a pruning, that is not read.

    Raises:
        UnsupportedError: the quantisation, by its name, and why.
    """
    for name, entry in catalogue.tensors.items():
        last = name.rpartition(".")[2]
        if last in _MARKS:
            raise _refused(_MARKS[last], entry.span.file, name)
        if last.endswith(_MASK) and name.removesuffix(_MASK) + "_orig" in catalogue.tensors:
            problem = "the mask of a pruning that is not made permanent: the weight in use is weight_orig times this"
            raise UnsupportedError(problem, file=entry.span.file, tensor=printable(name), remedy=_PRUNED)
    for key in ("quantization_config", "compression_config"):
        settings = section(catalogue.config, key)
        stated = settings.get("quant_method")
        if isinstance(stated, str) and stated not in READ:
            raise _refused(stated, "config.json")
        sparsity = settings.get("sparsity_config")
        form = sparsity.get("format") if isinstance(sparsity, dict) else None
        if isinstance(form, str) and form != "dense":
            problem = f"sparse weights of compressed-tensors ({printable(form)}): only the dense form is read"
            raise UnsupportedError(problem, file="config.json", remedy=_REMEDY)


def refuse_unread(catalogue: Catalogue, taken: Iterable[StoredTensor], free: Mapping[str, TensorEntry]) -> None:
    """Stop where weights are left that would be misread or left out.

    Args:
        catalogue: the whole checkpoint.
        taken: what the encodings took.
        free: the tensors that no encoding took.

    Raises:
        UnsupportedError: the quantisation, by its name.
    """
    of_quantised = {part.name for stored in taken if len(stored.parts) > 1 for part in stored.parts}
    for name, entry in catalogue.tensors.items():
        kind = _LEFT.get(name.rpartition(".")[2])
        if kind is not None and name not in of_quantised:
            raise _unread(kind, entry)
    modules: Modules | None = None
    for name, entry in free.items():
        matrix = len(entry.shape) >= 2 and 0 not in entry.shape
        packed = entry.dtype in _INTEGERS and matrix and name.endswith(".weight")
        if packed or entry.dtype in _UNREAD_FLOATS:
            raise _unread(f"weights packed as {entry.dtype}", entry)
        if entry.dtype in ("I8", "U8") and matrix and entry.size >= _FEW:
            modules = modules or Modules(catalogue.tensors.values())
            scale = modules.like_scales(entry, entry.shape, any_name=True)
            if scale is not None:
                raise unknown_scale(entry, scale)


def leftover(entry: TensorEntry) -> Skipped:
    """Why a tensor that no encoding took is not audited."""
    if entry.dtype in _INTEGERS:
        return Skipped.of(entry, f"integer buffer ({entry.dtype})", "buffer")
    if entry.dtype == "C64":
        return Skipped.of(entry, "complex numbers (C64)", "unreadable")
    return Skipped.of(entry, f"{entry.dtype} without a weight that it belongs to", "unreadable")


def _unread(kind: str, entry: TensorEntry) -> UnsupportedError:
    problem = f"{kind}: a quantisation that llmtrap does not read"
    return UnsupportedError(problem, file=entry.span.file, tensor=printable(entry.name), remedy=_REMEDY)


def _refused(method: str, file: str, tensor: str | None = None) -> UnsupportedError:
    known = _REFUSED.get(method.lower())
    problem = (
        f"the quantisation {printable(method)!r} is not one that llmtrap reads"
        if known is None
        else f"{known[0]} is not read: {known[1]}"
    )
    return UnsupportedError(problem, file=file, tensor=None if tensor is None else printable(tensor), remedy=_REMEDY)
