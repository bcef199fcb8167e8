"""Storage formats: the table of encodings, in the order in which they take their tensors."""

from __future__ import annotations

from llmtrap.checkpoint.encodings.awq import Awq
from llmtrap.checkpoint.encodings.base import Encoding, StoredTensor
from llmtrap.checkpoint.encodings.bitsandbytes import BitsAndBytes
from llmtrap.checkpoint.encodings.chunked import Chunked
from llmtrap.checkpoint.encodings.column_scaled import undo_column_scaling
from llmtrap.checkpoint.encodings.compressed import CompressedIntegers
from llmtrap.checkpoint.encodings.fp4 import Fp4
from llmtrap.checkpoint.encodings.fp8_block import Fp8Block
from llmtrap.checkpoint.encodings.gguf import GgufBlocks
from llmtrap.checkpoint.encodings.gptq import Gptq
from llmtrap.checkpoint.encodings.hqq import Hqq
from llmtrap.checkpoint.encodings.int4_rows import Int4Rows
from llmtrap.checkpoint.encodings.int8 import Int8
from llmtrap.checkpoint.encodings.mlx import Mlx
from llmtrap.checkpoint.encodings.mxfp4 import Mxfp4
from llmtrap.checkpoint.encodings.plain import Plain
from llmtrap.checkpoint.encodings.quanto import Quanto
from llmtrap.checkpoint.encodings.rotated import undo_rotation
from llmtrap.checkpoint.encodings.torchao import TorchAo
from llmtrap.checkpoint.encodings.weight_norm import WeightNorm
from llmtrap.checkpoint.tensors import Catalogue, TensorEntry

__all__ = ["ENCODINGS", "Encoding", "StoredTensor", "claim_all"]

ENCODINGS: tuple[Encoding, ...] = (
    Mlx(),
    Mxfp4(),
    BitsAndBytes(),
    TorchAo(),
    Quanto(),
    Hqq(),
    CompressedIntegers(),
    Gptq(),
    Awq(),
    Fp4(),
    Int4Rows(),
    Int8(),
    Fp8Block(),
    GgufBlocks(),
    WeightNorm(),
    Plain(),
)
_CHUNKED = Chunked()  # the others read rows as they lie, so they are shown no tensor that does not lie so


def claim_all(catalogue: Catalogue) -> tuple[list[StoredTensor], dict[str, TensorEntry]]:
    """Let every encoding take its tensors; returns what was taken, in catalogue order, and what nobody took.

    Raises:
        CheckpointError: an encoding's tensors contradict one another.
    """
    free = dict(catalogue.tensors)
    taken = _CHUNKED.claim(catalogue, free)
    in_chunks = {name: free.pop(name) for name, entry in catalogue.tensors.items() if entry.chunks and name in free}
    taken += [stored for encoding in ENCODINGS for stored in encoding.claim(catalogue, free)]
    taken = undo_rotation(catalogue, undo_column_scaling(taken))
    free |= in_chunks
    order = {name: position for position, name in enumerate(catalogue.tensors)}
    taken.sort(key=lambda stored: order[stored.name])
    return taken, free
