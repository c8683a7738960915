"""The trainer on a machine that has torch, numpy, pyarrow and pydantic alone."""

import subprocess
import sys
from pathlib import Path

ABSENT = ("yaml", "safetensors", "duckdb", "mlflow", "kfp", "optuna", "pandas", "boto3")

TRAIN_TWO_STEPS = '''
import importlib.machinery, pkgutil, sys

class BarePathFinder(importlib.machinery.PathFinder):
    """Finds what is installed, except the packages named; None in sys.modules pyarrow would take for pandas."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        absent = name.partition(".")[0] in sys.argv[1:]
        return None if absent else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = BarePathFinder

import glintru_model.data, glintru_model.models, glintru_model.training

for package in (glintru_model.data, glintru_model.models, glintru_model.training):
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("_triton"):  # need that package, which torch brings where there are GPUs
            importlib.import_module(module.name)

import numpy as np
import pyarrow as pa
from glintru_model.config import GlintruConfig, GlintruRecommender, SasrecConfig, SasrecRecommender, TrainingConfig
from glintru_model.data.sequences import SequenceDataset, Vocabulary
from glintru_model.training.trainer import train

ends, counts = np.array([4, 4]), np.ones(5, dtype=np.int64)
items = np.array([1, 2, 3, 4, 2, 3, 4, 5], dtype=np.int32)
vocabulary = Vocabulary(pa.array(range(5)), counts, counts)
dataset = SequenceDataset(pa.array([0, 1]), np.array([0, 4, 8]), items, ends, ends, vocabulary, {})
sizes = {"embedding_dim": 4, "num_heads": 2, "max_seq_len": 4}
training = TrainingConfig(max_epochs=2, device="cpu")  # of one step each
for config in (
    GlintruRecommender(architecture=GlintruConfig(**sizes), training=training),
    SasrecRecommender(architecture=SasrecConfig(**sizes), training=training),
):
    _, result = train(config, dataset, validate=lambda model: {"ndcg_at_10": 0.5})
    print(config.name, [epoch.train_loss > 0 for epoch in result.history])
'''


def test_it_imports_and_trains_without_any_other_package():
    command = [sys.executable, "-c", TRAIN_TWO_STEPS, *ABSENT]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    trained = [line for line in done.stdout.splitlines() if not line.startswith("»")]
    assert trained == ["glintru [True, True]", "sasrec [True, True]"]
