"""The vocabulary: which items have an index, and which one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from glintru_model.data.coding import BoolArray, Int64Array
from glintru_model.data.sequences import Int32Array, Vocabulary
from glintru_model.errors import DataError


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Items in the order of their indices.

    Attributes:
        item_ids: row i holds the item of index i + 1.
        train_counts, recent_train_counts: their training events.
        index_of_code: index of each item code of the log, 0 where it has none.
        num_new: items that an earlier vocabulary did not have.
    """

    item_ids: pa.Array
    train_counts: Int64Array
    recent_train_counts: Int64Array
    index_of_code: Int32Array
    num_new: int

    @property
    def num_items(self) -> int:
        """Size of the catalogue."""
        return len(self.item_ids)

    def batch(self, titles: Path) -> pa.RecordBatch:
        """Return the table of `vocabulary.arrow`, with titles where that file has them."""
        columns: dict[str, Any] = {
            "item_id": self.item_ids,
            "train_count": self.train_counts,
            "recent_train_count": self.recent_train_counts,
        }
        if titles.is_file():
            import pyarrow.parquet as pq

            table = pq.read_table(titles, columns=["item_id", "title"]).combine_chunks()
            rows = pc.index_in(self.item_ids, value_set=table.column("item_id").cast(self.item_ids.type))
            columns["title"] = table.column("title").combine_chunks().take(rows)
        return pa.record_batch(columns)


def index_items(
    item_ids: pa.Array,
    train_counts: Int64Array,
    recent_counts: Int64Array,
    wanted: BoolArray,
    earlier: Vocabulary | None = None,
) -> Catalogue:
    """Order items by training events, descending, ties by id; an earlier vocabulary's items come first, as they were.

    Args:
        item_ids: the id of each code, ascending, (C,).
        train_counts, recent_counts: training events of each code, (C,).
        wanted: which codes are to have an index, (C,).
        earlier: the vocabulary whose indices stay.

    Raises:
        DataError: the earlier vocabulary's ids are of another type.
    """
    known = np.zeros(len(item_ids), dtype=np.int32)
    if earlier is not None:
        if earlier.item_ids.type != item_ids.type:
            raise DataError(f"keep_indices_of: item ids are {earlier.item_ids.type} there and {item_ids.type} here")
        known = earlier.index_of(item_ids)
    new = np.flatnonzero(wanted & (known == 0))
    new = new[np.argsort(-train_counts[new], kind="stable")]  # codes go by id: a stable sort leaves ties by id
    num_known = earlier.num_items if earlier is not None else 0
    index_of_code = known.copy()
    index_of_code[new] = num_known + 1 + np.arange(len(new), dtype=np.int32)
    new_ids = item_ids.take(pa.array(new))
    return Catalogue(
        item_ids=new_ids if earlier is None else pa.concat_arrays([earlier.item_ids, new_ids]),
        train_counts=_by_index(train_counts, index_of_code, num_known + len(new)),
        recent_train_counts=_by_index(recent_counts, index_of_code, num_known + len(new)),
        index_of_code=index_of_code,
        num_new=len(new),
    )


def _by_index(of_codes: Int64Array, index_of_code: npt.NDArray[np.int32], size: int) -> Int64Array:
    values = np.zeros(size + 1, dtype=np.int64)
    values[index_of_code] = of_codes
    return values[1:]
