"""k-core by counting: which users and items are left once all that have fewer than k events are gone, repeatedly.

The events are scanned from disk in chunks; memory holds one counter a user and an item. After the first scan a round
only subtracts the events that it takes away, so its cost is that of finding them.
"""

from functools import partial

import numpy as np
import numpy.typing as npt

from glintru_model.data.columns import ColumnFile, chunks, in_order
from glintru_model.progress import say

BoolArray = npt.NDArray[np.bool_]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


def count_events(codes: ColumnFile, total: int, num_codes: int) -> Int64Array:
    """Count the events of each code, (num_codes,)."""
    counts = np.zeros(num_codes, dtype=np.int64)
    for of_chunk in in_order(lambda rows: np.bincount(codes.read(*rows), minlength=num_codes), chunks(total)):
        counts += of_chunk
    return counts


def find_core(
    users: ColumnFile, items: ColumnFile, total: int, user_counts: Int64Array, item_counts: Int64Array, least: int
) -> tuple[BoolArray, BoolArray]:
    """Find the largest set of users and items each with at least `least` events among themselves.

    Args:
        users, items: each event's user code and item code.
        total: number of events.
        user_counts, item_counts: events of each code, (U,) and (V,); changed in place to those within the core.
        least: k.

    Returns:
        Which users and which items are in it, (U,) and (V,).
    """
    kept_users, kept_items = user_counts >= least, item_counts >= least
    gone_users, gone_items = ~kept_users, ~kept_items
    rounds = 0
    while gone_users.any() or gone_items.any():
        rounds += 1
        gone, present = (gone_users, gone_items), (kept_users | gone_users, kept_items | gone_items)
        for user, item in in_order(partial(_events_gone, users, items, gone, present), chunks(total)):
            user_counts -= np.bincount(user, minlength=len(user_counts))
            item_counts -= np.bincount(item, minlength=len(item_counts))
        gone_users, gone_items = kept_users & (user_counts < least), kept_items & (item_counts < least)
        kept_users &= ~gone_users
        kept_items &= ~gone_items
    said = f"{rounds} round{'' if rounds == 1 else 's'}"
    say(f"k_core {least}: {int(kept_users.sum()):,} users and {int(kept_items.sum()):,} items left, {said}")
    return kept_users, kept_items


def _events_gone(
    users: ColumnFile,
    items: ColumnFile,
    gone: tuple[BoolArray, BoolArray],
    present: tuple[BoolArray, BoolArray],
    rows: tuple[int, int],
) -> tuple[Int32Array, Int32Array]:
    """Return user and item of each event that this round takes away."""
    user, item = users.read(*rows), items.read(*rows)
    touched = np.flatnonzero(gone[0][user] | gone[1][item])
    user, item = user[touched], item[touched]
    # An event of which the other end went in an earlier round has been taken away then.
    counted = present[0][user] & present[1][item]
    return user[counted], item[counted]
