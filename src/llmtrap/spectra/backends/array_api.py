"""Any library that follows the Array API standard (CuPy, PyTorch, array-api-strict), on the device it is given."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmtrap.spectra.backends.base import Array, HostFloats
from llmtrap.spectra.backends.current_device import on_its_device
from llmtrap.spectra.backends.decoding import ArrayApiDecoder, to_host
from llmtrap.spectra.backends.iteration import top_by_iteration


class ArrayApiBackend:
    """Gram matrices and eigenvalues through the standard's own functions alone.

    Args:
        namespace: the library.
        name: what it is called in a report.
        device: one of the library's devices; None for its own choice.
    """

    def __init__(self, namespace: Any, *, name: str, device: Any = None):
        self._xp = namespace
        self._device = device
        self.name = name
        self.decoder = ArrayApiDecoder(namespace, device)

    @on_its_device
    def from_host(self, block: HostFloats) -> Array:
        """Copy to the device."""
        return self._xp.asarray(np.ascontiguousarray(block), device=self._device)

    @on_its_device
    def gram(self, size: int, dtype: str) -> Array:
        """A zero matrix; both triangles are kept."""
        return self._xp.zeros((size, size), dtype=getattr(self._xp, dtype), device=self._device)

    @on_its_device
    def add_gram(self, gram: Array, block: Array, *, transposed: bool = False, scale: float = 1.0) -> Array:
        """One matrix product."""
        if scale != 1.0:
            block = self._xp.astype(block, self._xp.float64) * scale
        block = self._xp.astype(block, gram.dtype)
        flipped = self._xp.matrix_transpose(block)
        product = self._xp.matmul(block, flipped) if transposed else self._xp.matmul(flipped, block)
        return gram + product

    @on_its_device
    def subtract_gram(self, gram: Array, block: Array) -> Array:
        """One matrix product."""
        block = self._xp.astype(block, gram.dtype)
        return gram - self._xp.matmul(self._xp.matrix_transpose(block), block)

    @on_its_device
    def add_rank_two(self, gram: Array, x: HostFloats, y: HostFloats) -> Array:
        """One outer product and its transpose."""
        left = self._like(x, gram)
        right = self._like(y, gram)
        outer = left[:, None] * right[None, :]
        return gram + outer + self._xp.matrix_transpose(outer)

    @on_its_device
    def add_symmetric(self, gram: Array, change: HostFloats) -> Array:
        """One sum."""
        return gram + self._like(change, gram)

    @on_its_device
    def eigenvalues(self, gram: Array) -> NDArray[np.float64]:
        """The standard's values-only symmetric solver, in float64.

        cuSOLVER's float32 is off by 6·10⁻⁷ of the largest, thirty times as much as LAPACK's, and a quarter faster.
        """
        return self._to_host(self._xp.linalg.eigvalsh(self._xp.astype(gram, self._xp.float64)))

    @on_its_device
    def top_eigenpairs(
        self, gram: Array, count: int, start: HostFloats, *, vectors: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """ARPACK here and its products there, which takes half of a full solve's time; else a full solve."""

        def multiply(vector: HostFloats) -> HostFloats:
            return to_host(self._xp.matmul(gram, self._like(vector.reshape(-1), gram)))

        precision = np.float64 if gram.dtype == self._xp.float64 else np.float32
        found = top_by_iteration(multiply, start.astype(precision), count, vectors=vectors)
        if found is not None:
            return found
        if not vectors:
            return self.eigenvalues(gram)[::-1][:count].copy(), None
        values, columns = self._xp.linalg.eigh(gram)
        host = self._to_host(values)[::-1][:count].copy()
        return host, self._to_host(columns)[:, ::-1][:, :count].copy()

    @on_its_device
    def count_above(self, gram: Array, edge: float) -> int:
        """A full solve: the standard has no factorisation whose signs could be counted."""
        return int((self.eigenvalues(gram) > edge).sum())

    @on_its_device
    def column_sums(self, block: Array) -> NDArray[np.float64]:
        """Sums in float64."""
        return self._to_host(self._xp.sum(self._xp.astype(block, self._xp.float64), axis=0))

    def _like(self, values: HostFloats, like: Array) -> Array:
        return self._xp.astype(self._xp.asarray(np.ascontiguousarray(values), device=self._device), like.dtype)

    @staticmethod
    def _to_host(array: Array) -> NDArray[np.float64]:
        return np.asarray(to_host(array), dtype=np.float64)
