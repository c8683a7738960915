import random

import pytest

from benchmarks import own_training
from glintru_model.config import SasrecConfig, SasrecRecommender, TrainingConfig
from glintru_model.training.trainer import train


def test_epochs_are_counted_in_training_and_validated_after_it(dataset_of, tmp_path, monkeypatch):
    validated, rank_targets = [], own_training.rank_targets

    def rank(scorer, *arguments, **options):
        validated.append({name: weight.clone() for name, weight in scorer.model.state_dict().items()})
        return rank_targets(scorer, *arguments, **options)

    monkeypatch.setattr(own_training, "rank_targets", rank)
    monkeypatch.setattr(own_training, "_MATRIX", 64)
    draw = random.Random(0)
    dataset = dataset_of([[draw.randint(1, 50) for _ in range(10)] for _ in range(1_000)], num_items=50)
    settings = TrainingConfig(max_epochs=3, patience=3, learning_rate=0.01, device="cpu")
    config = SasrecRecommender(architecture=SasrecConfig(embedding_dim=16, max_seq_len=10), training=settings)
    watch = own_training.Watch(tmp_path, "cpu")
    model, result = train(config, dataset, validate=watch.keep, on_epoch=watch.on_epoch)
    assert validated == []
    assert [targets for _, targets in watch.epochs] == pytest.approx([1_000 * 7] * 3, rel=0.2)

    trained = {name: weight.clone() for name, weight in model.state_dict().items()}
    curve = watch.curve(model, dataset)
    assert len({value for _, value in curve}) == 3
    assert [seconds for seconds, _ in curve] == sorted(seconds for seconds, _ in curve)
    assert curve[-1][0] == pytest.approx(watch.seconds)
    assert watch.seconds < result.seconds  # which has the writing of weights in it
    assert len(watch.rates) == 4  # one before, one after each epoch
    assert all(weight.equal(trained[name]) for name, weight in validated[-1].items())
