"""The architectures that transformers builds: each weight has a role of the field, and all but vectors are measured.

A part of them is tried with every run, all of them by `make test-architectures` (half a minute).
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterator

import pytest

from llmtrap.checkpoint import find_matrices

transformers = pytest.importorskip("transformers")
architectures = pytest.importorskip("tests.support.architectures")

EVERY = 1 if os.environ.get("LLMTRAP_EVERY_ARCHITECTURE") else 14
LEAST = 352 if EVERY == 1 else 15  # transformers 5.24 builds so many from their default configurations
KNOWN = re.compile(
    r"(embedding|unembedding|router|position|query_tokens|classifier|pooler|projector|patch_embedding|convolution"
    r"|(attention|cross_attention|linear_attention|ssm|mlp|experts|shared_experts)\.\w+)(\.\w+)*"
)
LEAST_SHARE = 0.98


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    transformers.logging.set_verbosity_error()
    yield
    transformers.logging.set_verbosity_warning()


def complaints(name: str) -> list[str] | None:
    """What is not as it should be with one architecture; None where transformers cannot build it."""
    catalogue = architectures.catalogue(name)
    if catalogue is None:
        return None
    found = find_matrices(catalogue)
    floats = {
        tensor: entry.size for tensor, entry in catalogue.tensors.items() if entry.dtype in ("F32", "BF16", "F16")
    }
    seen = Counter[str]()
    roles = Counter[bool]()
    for matrix in found.matrices:
        seen[matrix.tensor] += math.prod(matrix.shape)
        roles[KNOWN.fullmatch(matrix.role) is not None] += math.prod(matrix.shape)
    share = sum(min(seen[tensor], size) for tensor, size in floats.items()) / sum(floats.values())
    wrong = []
    if share < LEAST_SHARE:
        wrong.append(f"{share:.1%} of the parameters are in matrices")
    if roles[True] < LEAST_SHARE * roles.total():
        unknown = {matrix.role for matrix in found.matrices if not KNOWN.fullmatch(matrix.role)}
        wrong.append(f"{roles[True] / roles.total():.1%} have a role, not {sorted(unknown)[:4]}")
    experts = [m for m in found.matrices if re.search(r"\.experts\.(\d+\.|gate_up_proj|down_proj)", m.tensor)]
    if any(matrix.expert is None for matrix in experts):
        wrong.append("experts without a number")
    if len({matrix.id for matrix in found.matrices}) < len(found.matrices):
        wrong.append("two matrices of one id")
    return wrong


def test_each_weight_of_the_architectures_has_its_role() -> None:
    results = {name: complaints(name) for name in architectures.names()[::EVERY]}
    built = {name: wrong for name, wrong in results.items() if wrong is not None}
    assert {name: wrong for name, wrong in built.items() if wrong} == {}
    assert len(built) >= LEAST
