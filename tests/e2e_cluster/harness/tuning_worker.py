"""A tuning worker on a tiny dataset, with a fast heartbeat: `tuning_worker.py STUDY WORKER TRIALS [STUCK]`.

With STUCK it creates that file in the middle of its first trial and goes on no further.
"""

import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from glintru_model.config import SasrecConfig, SasrecRecommender, TrainingConfig, TuningConfig
from glintru_model.data.sequences import SequenceDataset, Vocabulary
from glintru_model.tracking import RunRef
from glintru_model.tuning import storage
from glintru_model.tuning.study import open_study
from glintru_model.tuning.worker import run_worker

HEARTBEAT_SECONDS = 1
_USERS, _LENGTH, _ITEMS = 24, 7, 12


def _dataset() -> SequenceDataset:
    """Every user walks round the catalogue, one item after the other."""
    steps = (np.arange(_LENGTH) + np.arange(_USERS)[:, None]) % _ITEMS + 1
    counts = np.bincount(steps[:, :-2].ravel(), minlength=_ITEMS + 1)[1:]
    return SequenceDataset(
        user_ids=pa.array(range(_USERS)),
        offsets=np.arange(0, _USERS * _LENGTH + 1, _LENGTH),
        item_ids=steps.ravel().astype(np.int32),
        train_ends=np.full(_USERS, _LENGTH - 2),
        validation_ends=np.full(_USERS, _LENGTH - 1),
        vocabulary=Vocabulary(pa.array(range(_ITEMS)), counts, counts),
        manifest={"dataset_hash": "tiny"},
    )


def main(study: str, worker: int, trials: int, stuck: str = "") -> None:
    """Run trials; the study's database is the environment's."""
    storage._HEARTBEAT_SECONDS = HEARTBEAT_SECONDS
    architecture = SasrecConfig(max_seq_len=6, embedding_dim=8, num_heads=1, num_blocks=1)
    training = TrainingConfig(batch_size=16, device="cpu", num_threads=1)
    recommender = SasrecRecommender(architecture=architecture, training=training)
    config = TuningConfig(num_trials=trials, max_epochs=1)
    open_study("", study, config, recommender)

    def validate(_model: object) -> dict[str, float]:
        if stuck:
            Path(stuck).touch()
            time.sleep(600)
        return {"ndcg_at_10": 0.5}

    run_worker(
        recommender,
        _dataset(),
        config,
        storage="",
        study_name=study,
        worker=worker,
        validate=validate,
        tracker_parent=RunRef(),
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
