"""A synthetic log of any size for the benchmarks of the data stages: power laws on both sides, drawn file by file."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

_EXPONENT, _SHIFT_SHARE = 1.4, 1e-3  # Zipf-Mandelbrot: the k-th of N has weight (k + N / 1000) ** -1.4
_FIRST, _SPAN = 1_600_000_000, 100_000_000  # Unix seconds: a little over three years
_ROWS_PER_FILE = 5_000_000


def write_scale_log(directory: Path, rows: int, seed: int = 0) -> None:
    """Write `rows` interactions as Parquet files: a user per 100 rows, an item per 200, int64 ids.

    Each file covers a span of time of its own, unordered within it, as a collector that closes a file every few days
    leaves it.

    Args:
        directory: where the files go.
        rows: interactions in all.
        seed: of the draw.
    """
    directory.mkdir(parents=True)
    num_files = -(-rows // _ROWS_PER_FILE)
    names = np.random.default_rng([seed, 0])
    users = names.permutation(rows // 100) + 1_000_000
    items = names.permutation(rows // 200) + 10
    for number in range(num_files):
        size = min(_ROWS_PER_FILE, rows - number * _ROWS_PER_FILE)
        rng = np.random.default_rng([seed, 1, number])
        begin = _FIRST + _SPAN * number // num_files
        table = pa.table(
            {
                "user_id": users[_draw_ranks(rng, len(users), size)],
                "item_id": items[_draw_ranks(rng, len(items), size)],
                "timestamp": rng.integers(begin, begin + _SPAN // num_files, size),
            }
        )
        pq.write_table(table, directory / f"part-{number:05d}.parquet", row_group_size=500_000)


def _draw_ranks(rng: np.random.Generator, count: int, size: int) -> npt.NDArray[np.int64]:
    """Draw ranks 0..count-1 by inverting the continuous form of the law."""
    shift, power = count * _SHIFT_SHARE, 1 - _EXPONENT
    low, high = shift**power, (count + shift) ** power
    ranks = (low + rng.random(size) * (high - low)) ** (1 / power) - shift
    whole: npt.NDArray[np.int64] = np.minimum(ranks.astype(np.int64), count - 1)
    return whole
