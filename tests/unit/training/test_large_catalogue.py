"""A catalogue of a million items trains on a CPU in 4 GB."""

import json
import subprocess
import sys

import pytest

NUM_ITEMS = 1_000_000
SCRIPT = f"""
import json
import torch
from glintru_model.config import SasrecConfig, SasrecRecommender, TrainingConfig
from glintru_model.memory import peak_resident_bytes
from glintru_model.models.registry import build_model
from glintru_model.training.losses import cross_entropy
from glintru_model.training.optimizer import build_optimizer

torch.set_num_threads(1)
training = TrainingConfig(device="cpu")
model = build_model(SasrecRecommender(architecture=SasrecConfig(embedding_dim=64), training=training), {NUM_ITEMS})
optimizer = build_optimizer(model, training)
items = torch.randint(1, {NUM_ITEMS} + 1, (4, 21))
losses = []
for _ in range(3):
    hidden = model(items[:, :-1], torch.full((4,), 20)).flatten(0, 1)
    loss = cross_entropy(hidden, model.item_embedding.weight, items[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(json.dumps({{"losses": losses, "peak": peak_resident_bytes()}}))
"""


@pytest.mark.slow
def test_a_million_items_train_within_4_gb():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["losses"][2] < found["losses"][1] < found["losses"][0]
    assert found["peak"] < 4e9
