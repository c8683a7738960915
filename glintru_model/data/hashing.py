"""Hashes of content: what a cache key and a dataset's version are made of."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_BYTES_PER_READ = 1 << 22


def hash_file(path: Path, algorithm: str = "sha256") -> str:
    """Hash a file's bytes; returns hex."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BYTES_PER_READ):
            digest.update(block)
    return digest.hexdigest()


def hash_batches(*batches: pa.RecordBatch) -> str:
    """Hash tables by their values, independent of how Arrow lays out a file.

    Returns:
        sha256, hex.
    """
    digest = hashlib.sha256()
    for batch in batches:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            digest.update(f"{name}:{column.type}:{len(column)};".encode())
            for values in _flat_values(column):
                digest.update(np.ascontiguousarray(values).view(np.uint8).data)
    return digest.hexdigest()


def _flat_values(column: pa.Array) -> list[np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    if pa.types.is_large_list(column.type):
        return [column.value_lengths().to_numpy(), column.flatten().to_numpy()]
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        lengths = pc.fill_null(pc.cast(pc.binary_length(column), pa.int64()), -1)
        text = column.cast(pa.large_string()).fill_null("")
        offsets = np.frombuffer(text.buffers()[1], dtype=np.int64)[text.offset : text.offset + len(text) + 1]
        data = np.frombuffer(text.buffers()[2] or b"", dtype=np.uint8)
        return [lengths.to_numpy(), data[offsets[0] : offsets[-1]] if len(text) else data[:0]]
    return [column.to_numpy()]
