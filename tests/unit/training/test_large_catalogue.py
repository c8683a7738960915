"""A catalogue of a million items trains on a CPU in 4 GB: with validation, moving average and checkpoints."""

import json
import subprocess
import sys

import pytest

NUM_ITEMS, NUM_USERS, EVENTS = 1_000_000, 64, 5
SCRIPT = f"""
import json
from pathlib import Path
import numpy as np
import pyarrow as pa
from glintru_model.config import SasrecConfig, SasrecRecommender, TrainingConfig
from glintru_model.data.sequences import SequenceDataset, Vocabulary
from glintru_model.evaluation.metrics import metrics_from_ranks
from glintru_model.evaluation.ranking import rank_targets
from glintru_model.memory import peak_resident_bytes
from glintru_model.models.scorer import ModelScorer
from glintru_model.training.trainer import train

items = np.random.default_rng(0).integers(1, {NUM_ITEMS} + 1, {NUM_USERS * EVENTS}).astype(np.int32)
offsets = np.arange({NUM_USERS} + 1) * {EVENTS}
counts = np.ones({NUM_ITEMS}, dtype=np.int64)
dataset = SequenceDataset(
    user_ids=pa.array(range({NUM_USERS})),
    offsets=offsets,
    item_ids=items,
    train_ends=np.full({NUM_USERS}, {EVENTS - 2}),
    validation_ends=np.full({NUM_USERS}, {EVENTS - 1}),
    vocabulary=Vocabulary(pa.array(range(1, {NUM_ITEMS} + 1)), counts, counts),
    manifest={{"dataset_hash": "random"}},
)

def validate(model):
    cases = dataset.cases("validation")
    ranks = rank_targets(ModelScorer(model), dataset, cases, filter_seen=True, batch_size=256).ranks
    return {{"ndcg_at_10": float(metrics_from_ranks(ranks, (10,))["ndcg_at_10"].mean())}}

training = TrainingConfig(device="cpu", num_threads=1, batch_size=32, max_epochs=3, ema_decay=0.9)
config = SasrecRecommender(architecture=SasrecConfig(embedding_dim=64), training=training)
_, result = train(config, dataset, validate=validate, checkpoint_dir=Path("checkpoints"))
print(json.dumps({{"losses": [epoch.train_loss for epoch in result.history], "peak": peak_resident_bytes()}}))
"""


@pytest.mark.slow
def test_a_million_items_train_within_4_gb(tmp_path):
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, cwd=tmp_path)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["losses"][2] < found["losses"][1] < found["losses"][0]
    assert found["peak"] < 4e9
