"""Small untrained models on disk, with integer and with text ids."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from glintru_model.config import GlintruConfig, GlintruRecommender, SasrecConfig, SasrecRecommender
from glintru_model.models.files import save_model
from glintru_model.models.registry import build_model

NUM_ITEMS = 30
SIZES = {"max_seq_len": 8, "embedding_dim": 8, "num_heads": 2, "num_blocks": 1}


def write_model(directory, name, item_ids, seed=0):
    configs = {
        "glintru": GlintruRecommender(architecture=GlintruConfig(**SIZES)),
        "sasrec": SasrecRecommender(architecture=SasrecConfig(**SIZES)),
    }
    counts = pa.array(np.arange(len(item_ids), 0, -1))
    vocabulary = pa.record_batch({"item_id": item_ids, "train_count": counts, "recent_train_count": counts})
    source = directory.parent / f"{directory.name}.arrow"
    with pa.OSFile(str(source), "wb") as file, pa.ipc.new_file(file, vocabulary.schema) as writer:
        writer.write(vocabulary)
    torch.manual_seed(seed)
    model = build_model(configs[name], len(item_ids))
    with torch.no_grad():
        model.item_embedding.weight[1:].normal_()  # far apart, so that rankings do not hang on rounding
    save_model(model, configs[name], source, directory)
    return directory


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def glintru_dir(models_dir):
    """Items 100, 101, ... as integers: index i is item 99 + i."""
    return write_model(models_dir / "glintru", "glintru", pa.array(range(100, 100 + NUM_ITEMS)))


@pytest.fixture(scope="session")
def sasrec_dir(models_dir):
    """Items as text."""
    return write_model(models_dir / "sasrec", "sasrec", pa.array([f"B{i:03}" for i in range(NUM_ITEMS)]))


@pytest.fixture(scope="session")
def other_glintru_dir(models_dir):
    """Another training's outcome."""
    return write_model(models_dir / "other", "glintru", pa.array(range(100, 100 + NUM_ITEMS)), seed=1)
