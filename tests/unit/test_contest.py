"""Champion and newcomer on the same validation users, with real models and a champion of an older log."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from glintru_model.config import EvaluationConfig, RegistryConfig, SasrecConfig, SasrecRecommender
from glintru_model.contest import make_judge
from glintru_model.data.trained_events import write_trained_events
from glintru_model.models.files import save_model
from glintru_model.models.registry import build_model
from glintru_model.serving.alias_rule import Contest, Refusal
from glintru_model.serving.registry import Champion

CONFIG = EvaluationConfig(bootstrap_samples=200)
RECOMMENDER = SasrecRecommender(architecture=SasrecConfig(max_seq_len=10, embedding_dim=8, num_blocks=1))


def ring_model(directory, dataset):
    """A model that recommends the neighbours, on a ring of items, of the newest item."""
    vocabulary, size = dataset.vocabulary, dataset.num_items
    batch = pa.record_batch(
        {
            "item_id": vocabulary.item_ids,
            "train_count": vocabulary.train_counts,
            "recent_train_count": vocabulary.recent_train_counts,
        }
    )
    source = directory.parent / f"{directory.name}.arrow"
    with pa.OSFile(str(source), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write(batch)
    model = build_model(RECOMMENDER, size)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model.norm.weight.fill_(1.0)
        # each item's vector leans towards the next one's: with the blocks silent, its own hidden state is its norm
        angles = 2 * np.pi * np.arange(size) / size
        waves = [wave(k * angles) for wave in (np.cos, np.sin) for k in (1, 2)]
        frequencies = torch.tensor(np.stack(waves))
        model.item_embedding.weight[1:, :4] = frequencies.T.float()
    save_model(model, RECOMMENDER, source, directory)
    return directory


@pytest.fixture
def dataset(dataset_of):
    """Users stay near the item they had last: the target is its neighbour on a ring of 40."""
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 40, size=150)
    return dataset_of([[int(s + i) % 40 + 1 for i in range(6)] for s in starts], num_items=40)


def judge_of(directory, dataset, registry=None):
    return make_judge(directory, dataset, CONFIG, registry or RegistryConfig())


def test_same_dataset_is_compared_user_by_user(dataset, tmp_path):
    near = ring_model(tmp_path / "near", dataset)
    champion = Champion("1", dataset.manifest["dataset_hash"], near, None)
    level = judge_of(near, dataset)(champion)
    assert isinstance(level, Contest)
    assert (level.difference, level.low, level.high, level.num_users) == (0, 0, 0, 150)
    torch.manual_seed(1)
    noise = tmp_path / "noise"
    save_model(build_model(RECOMMENDER, 40), RECOMMENDER, tmp_path / "near.arrow", noise)
    better = judge_of(near, dataset)(Champion("1", dataset.manifest["dataset_hash"], noise, None))
    assert better.newcomer == level.newcomer
    assert better.low > 0.05
    worse = judge_of(noise, dataset, RegistryConfig(metric="recall_at_5"))(champion)
    assert worse.metric == "recall_at_5"
    assert worse.high < 0


def test_champion_of_another_log_is_scored_again_unless_it_knows_the_answers(dataset, dataset_of, tmp_path):
    near = ring_model(tmp_path / "near", dataset)
    judge = judge_of(near, dataset)
    strange = judge(Champion("1", "older", near, None))
    assert isinstance(strange, Refusal)
    assert "without a record" in strange.reason
    # an older log of the same users, in which each had two events fewer: its training part ends before
    older = dataset_of([dataset.item_ids[6 * u : 6 * u + 4].tolist() for u in range(150)], num_items=40)
    fair = judge(Champion("1", "older", near, write_trained_events(older, tmp_path / "older")))
    assert isinstance(fair, Contest)
    assert fair.difference == 0
    # a newer log, two events longer: these validation events were training events there
    newer = dataset_of([[*dataset.item_ids[6 * u : 6 * u + 6].tolist(), 1, 2] for u in range(150)], num_items=40)
    unfair = judge(Champion("1", "newer", near, write_trained_events(newer, tmp_path / "newer")))
    assert unfair == Refusal("its training saw 150 of the 150 validation events of this dataset")


def test_champion_answers_through_its_own_vocabulary(dataset, tmp_path):
    near = ring_model(tmp_path / "near", dataset)
    reversed_ids = dataset.vocabulary.item_ids.take(pa.array(range(39, -1, -1)))
    vocabulary = replace(dataset.vocabulary, item_ids=reversed_ids)
    mirrored = ring_model(tmp_path / "mirrored", replace(dataset, vocabulary=vocabulary))
    record = write_trained_events(replace(dataset, user_ids=pa.array(range(1000, 1150))), tmp_path / "record")
    # on a ring read backwards every neighbour is still a neighbour
    outcome = judge_of(near, dataset)(Champion("1", "other", mirrored, record))
    assert isinstance(outcome, Contest)
    assert abs(outcome.difference) < 0.02
    assert outcome.champion > 0.3
