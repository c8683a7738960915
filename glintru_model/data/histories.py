"""Passes over sorted histories, block by block: each block holds whole users, and memory holds a few blocks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from glintru_model.data.coding import BoolArray, Int64Array, OrderedEvents
from glintru_model.data.columns import ROWS_PER_CHUNK, ColumnFile, in_order
from glintru_model.data.selection import kth_smallest
from glintru_model.data.splitting import Cuts, leave_one_out

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Block:
    """Some users' events.

    Attributes:
        users: their codes first..last, as a slice.
        offsets: where each one's events begin in the block, (u + 1,).
        codes, times: of the events, (n,).
    """

    users: slice
    offsets: Int64Array
    codes: npt.NDArray[np.int32]
    times: Int64Array

    def within(self, starts: Int64Array, ends: Int64Array) -> BoolArray:
        """Tell which events stand at the places start..end - 1 of their user's history, (n,); both by user code."""
        first, last = starts[self.users], ends[self.users]
        spans = np.stack([first, last - first, np.diff(self.offsets) - last], axis=1)
        return np.repeat(np.tile([False, True, False], len(first)), spans.ravel())

    def count(self, of_events: BoolArray, *ends: Int64Array) -> list[Int64Array]:
        """Count each user's events of which it is true: all, and those before each of the ends, (u,) each."""
        before = np.zeros(len(of_events) + 1, dtype=np.int64)
        np.cumsum(of_events, out=before[1:])
        starts = self.offsets[:-1]
        stops = [self.offsets[1:], *(starts + of_users[self.users] for of_users in ends)]
        return [before[stop] - before[starts] for stop in stops]


@dataclass(frozen=True, eq=False)
class Found:
    """What histories hold.

    Attributes:
        present: which item codes occur, (V,).
        num_repeats: events of an item that the user has had before.
        num_duplicates: those that have the same time too.
    """

    present: BoolArray
    num_repeats: int
    num_duplicates: int


class Histories:
    """Sorted events with the ends of their parts, as places in each history.

    Attributes:
        lengths, train_ends, validation_ends: of each user code, (U,).
        train_starts: the first training event that `max_history` leaves, (U,).
    """

    def __init__(self, events: OrderedEvents, cuts: Cuts | None, max_history: int) -> None:
        """Find the ends.

        Args:
            events: the histories.
            cuts: the temporal split; None for leave-one-out.
            max_history: newest training events that are kept of each user; 0 keeps all.
        """
        self._events, self.lengths = events, events.lengths
        self._offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        if cuts is None:
            self.train_ends, self.validation_ends = leave_one_out(self.lengths)
        else:
            self.train_ends, self.validation_ends = np.zeros((2, len(self.lengths)), dtype=np.int64)
            self._find_ends(cuts)
        surplus = self.train_ends - max_history if max_history else np.zeros_like(self.lengths)
        self.train_starts = np.maximum(surplus, 0)

    def each_block(self, work: Callable[[Block], Result]) -> Iterator[Result]:
        """Do the work on all users' blocks, a few at a time; yield what it returns, in order."""
        return in_order(lambda users: work(self._read(users)), self._cut())

    def _cut(self) -> Iterator[slice]:
        """Cut the users into blocks of about `ROWS_PER_CHUNK` events (one user's events are never parted)."""
        first, num_users = 0, len(self.lengths)
        while first < num_users:
            start = self._offsets[first]
            last = int(np.searchsorted(self._offsets, start + ROWS_PER_CHUNK, side="right")) - 1
            last = min(max(last, first + 1), num_users)
            yield slice(first, last)
            first = last

    def _read(self, users: slice) -> Block:
        start, end = self._offsets[users.start], self._offsets[users.stop]
        codes, times = self._events.codes.read(start, end), self._events.times.read(start, end)
        return Block(users, self._offsets[users.start : users.stop + 1] - start, codes, times)

    def _find_ends(self, cuts: Cuts) -> None:
        def find(block: Block) -> None:
            [self.train_ends[block.users]] = block.count(block.times <= cuts.validation)
            [self.validation_ends[block.users]] = block.count(block.times <= cuts.test)

        for _ in self.each_block(find):
            pass

    def is_train(self, block: Block) -> BoolArray:
        """Tell which events are training events that are kept, (n,)."""
        return block.within(self.train_starts, self.train_ends)

    def count_items(self, num_items: int, first: int, last: int) -> tuple[Int64Array, Int64Array, int]:
        """Count each item code's training events, all and those of the most recent tenth of all.

        Args:
            num_items: number of item codes.
            first, last: range of the times.

        Returns:
            Both counts, (V,), and the number of training events.
        """
        total = int((self.train_ends - self.train_starts).sum())
        counts, recent_counts = np.zeros((2, num_items), dtype=np.int64)
        if not total:
            return counts, recent_counts, total
        num_newest = -(-total // 10)
        [recent] = kth_smallest(self._train_times, first, last, [total - num_newest + 1])

        def count(block: Block) -> tuple[Int64Array, Int64Array]:
            codes, trained = block.codes, self.is_train(block)
            newest = codes[trained & (block.times >= recent)]
            return np.bincount(codes[trained], minlength=num_items), np.bincount(newest, minlength=num_items)

        for of_block, recent_of_block in self.each_block(count):
            counts += of_block
            recent_counts += recent_of_block
        return counts, recent_counts, total

    def look(self, num_items: int) -> "Found":
        """Tell which item codes the kept events have, and count those events that repeat others."""
        present, num_repeats, num_duplicates = np.zeros(num_items, dtype=np.bool_), 0, 0
        trims = bool(self.train_starts.any())

        def count(block: Block) -> tuple[int, int]:
            owners = np.repeat(np.arange(len(block.offsets) - 1), np.diff(block.offsets))
            codes, times = block.codes, block.times
            if trims:
                kept = block.within(self.train_starts, self.lengths)
                owners, codes, times = owners[kept], codes[kept], times[kept]
            present[codes] = True
            return _count_repeats(owners, codes, num_items), _count_duplicates(owners, codes, times)

        for repeats, duplicates in self.each_block(count):
            num_repeats += repeats
            num_duplicates += duplicates
        return Found(present, num_repeats, num_duplicates)

    def write_indices(
        self, path: Path, index_of_code: npt.NDArray[np.int32], on_rows: Callable[[int], None]
    ) -> tuple[npt.NDArray[Any], Int64Array, Int64Array, Int64Array]:
        """Write the item indices of the kept events of known items (index above 0), user by user.

        Returns:
            The file, mapped; each user code's events, and where training and validation end among them, (U,).
        """
        lengths, train_ends, validation_ends = np.zeros((3, len(self.lengths)), dtype=np.int64)
        trims, done = bool(self.train_starts.any()), 0

        def index(block: Block) -> tuple[npt.NDArray[np.int32], int]:
            indices = index_of_code[block.codes]
            kept = indices > 0
            if trims:
                kept &= block.within(self.train_starts, self.lengths)
            counted = block.count(kept, self.train_ends, self.validation_ends)
            lengths[block.users], train_ends[block.users], validation_ends[block.users] = counted
            return indices[kept], len(indices)

        with path.open("wb") as file:
            for indices, num_rows in self.each_block(index):
                file.write(indices.data)  # `tofile` does not say why a disk refuses
                done += num_rows
                on_rows(done)
        return ColumnFile(path, np.int32).map(), lengths, train_ends, validation_ends

    def _train_times(self) -> Iterator[Int64Array]:
        return self.each_block(lambda block: block.times[self.is_train(block)])


def _count_repeats(owners: Int64Array, codes: npt.NDArray[np.int32], num_items: int) -> int:
    """Count the events of an item that their user has had before."""
    pairs = owners * num_items + codes
    if len(owners) and (int(owners[-1]) + 1) * num_items <= 2**32:
        pairs = pairs.astype(np.uint32)  # sorts in half the time
    pairs.sort()
    return int((pairs[1:] == pairs[:-1]).sum())


def _count_duplicates(owners: Int64Array, codes: npt.NDArray[np.int32], times: Int64Array) -> int:
    """Count the events that have user, item and time of an earlier one."""
    tied = np.flatnonzero((owners[1:] == owners[:-1]) & (times[1:] == times[:-1])) + 1
    among = np.union1d(tied, tied - 1)  # a duplicate has the time of a neighbour
    order = among[np.lexsort((codes[among], times[among], owners[among]))]
    same = [values[order[1:]] == values[order[:-1]] for values in (codes, times, owners)]
    return int(np.logical_and.reduce(same).sum())
