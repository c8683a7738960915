"""What tests of several rooms share."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pytest

from glintru_model.data.sequences import SequenceDataset, Vocabulary


@pytest.fixture
def dataset_of() -> Callable[..., SequenceDataset]:
    """Build a leave-one-out dataset in memory from histories of item indices."""

    def build(histories: Sequence[Sequence[int]], num_items: int) -> SequenceDataset:
        lengths = np.array([len(history) for history in histories])
        has_targets = lengths >= 3
        train_ends = lengths - 2 * has_targets
        item_ids = np.concatenate([np.asarray(history, dtype=np.int32) for history in histories])
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        trained = [item for history, end in zip(histories, train_ends, strict=True) for item in history[:end]]
        counts = np.bincount(trained, minlength=num_items + 1)[1 : num_items + 1]
        return SequenceDataset(
            user_ids=pa.array(range(len(histories))),
            offsets=offsets,
            item_ids=item_ids,
            train_ends=train_ends,
            validation_ends=lengths - has_targets,
            vocabulary=Vocabulary(pa.array(range(1, num_items + 1)), counts, counts),
            manifest={"dataset_hash": str(hash(tuple(map(tuple, histories))))},
        )

    return build
