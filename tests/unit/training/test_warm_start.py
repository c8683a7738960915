"""A model that goes on from an earlier one's weights on a grown catalogue."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from glintru_model.config import GlintruConfig, GlintruRecommender, SasrecConfig, SasrecRecommender, TrainingConfig
from glintru_model.data.sequences import Vocabulary
from glintru_model.errors import DataError
from glintru_model.models.files import save_model
from glintru_model.models.registry import build_model
from glintru_model.training.trainer import train
from glintru_model.training.warm_start import warm_start

SIZES = {"embedding_dim": 8, "num_heads": 2, "max_seq_len": 6}
CONFIGS = {
    "sasrec": SasrecRecommender(architecture=SasrecConfig(**SIZES)),
    "glintru": GlintruRecommender(architecture=GlintruConfig(**SIZES)),
}


def vocabulary(ids):
    counts = np.ones(len(ids), dtype=np.int64)
    return Vocabulary(pa.array(ids), counts, counts)


@pytest.fixture
def earlier(tmp_path):
    """Save a model of the items a, b, c; returns (folder, its weights)."""

    def save(name, ids=("a", "b", "c")):
        table = pa.record_batch(
            {"item_id": list(ids), "train_count": [1] * len(ids), "recent_train_count": [1] * len(ids)}
        )
        path = tmp_path / "vocabulary.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_batch(table)
        torch.manual_seed(1)
        model = build_model(CONFIGS[name], len(ids))
        save_model(model, CONFIGS[name], path, tmp_path / "earlier")
        return tmp_path / "earlier", {key: value.clone() for key, value in model.state_dict().items()}

    return save


@pytest.mark.parametrize("name", CONFIGS)
def test_old_items_keep_their_vectors_and_new_ones_begin_fresh(earlier, name):
    folder, old = earlier(name)
    torch.manual_seed(2)
    model = build_model(CONFIGS[name], 5)
    fresh = model.item_embedding.weight.detach().clone()
    assert warm_start(model, vocabulary(["a", "b", "c", "d", "e"]), folder) == 2
    new = model.state_dict()
    assert torch.equal(new["item_embedding.weight"][:4], old["item_embedding.weight"])
    assert torch.equal(new["item_embedding.weight"][4:], fresh[4:])
    for key, value in old.items():
        if key != "item_embedding.weight":
            assert torch.equal(new[key], value), key


@pytest.mark.parametrize("ids", [["b", "a", "c", "d"], ["a", "b"], ["a", "b", "d", "c"]])
def test_items_with_other_indices_are_refused(earlier, ids):
    folder, _ = earlier("sasrec")
    with pytest.raises(
        DataError, match=r"other indices than here, build the sequences with sequences\.keep_indices_of"
    ):
        warm_start(build_model(CONFIGS["sasrec"], len(ids)), vocabulary(ids), folder)


def test_another_architecture_is_refused(earlier):
    folder, _ = earlier("sasrec")
    wide = SasrecRecommender(architecture=SasrecConfig(**{**SIZES, "embedding_dim": 16}))
    for config in (wide, CONFIGS["glintru"]):
        with pytest.raises(DataError, match="another architecture"):
            warm_start(build_model(config, 4), vocabulary(["a", "b", "c", "d"]), folder)


def test_as_many_positions_as_items_are_no_items(earlier):
    ids = [str(item) for item in range(SIZES["max_seq_len"] - 1)]  # and one row for padding
    folder, _ = earlier("sasrec", ids)
    longer = SasrecRecommender(architecture=SasrecConfig(**{**SIZES, "max_seq_len": SIZES["max_seq_len"] + 1}))
    with pytest.raises(DataError, match=r"another architecture, positions\.weight is"):
        warm_start(build_model(longer, len(ids)), vocabulary(ids), folder)


def test_training_begins_where_the_earlier_model_stood(dataset_of, tmp_path):
    histories = [[(start + step) % 20 + 1 for step in range(8)] for start in range(20)]
    first_losses = []
    for warm in (False, True):
        settings = TrainingConfig(
            max_epochs=1 if warm else 30,
            batch_size=8,
            device="cpu",
            learning_rate=0.01,
            warm_start_from=str(tmp_path / "model") if warm else "",
        )
        config = CONFIGS["sasrec"].model_copy(update={"training": settings})
        dataset = dataset_of(histories, 24 if warm else 20)  # four new items, after the others
        rising = iter(range(100))
        model, result = train(config, dataset, validate=lambda _, rising=rising: {"ndcg_at_10": next(rising)})
        first_losses.append(result.history[0].train_loss)
        ids = pa.record_batch({"item_id": range(1, 21), "train_count": [1] * 20, "recent_train_count": [1] * 20})
        with pa.OSFile(str(tmp_path / "v.arrow"), "wb") as sink, pa.ipc.new_file(sink, ids.schema) as writer:
            writer.write_batch(ids)
        save_model(model, config, tmp_path / "v.arrow", tmp_path / "model")
    assert first_losses[1] < 0.7 * first_losses[0]
