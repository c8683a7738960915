"""What every model must hold to, whatever its architecture."""

import pytest
import torch

from glintru_model.config import (
    GlintruConfig,
    GlintruRecommender,
    SasrecConfig,
    SasrecRecommender,
    TrainingConfig,
)
from glintru_model.models.base import padding_mask
from glintru_model.models.files import load_model, save_model
from glintru_model.models.registry import MODELS, build_model
from glintru_model.models.scorer import ModelScorer
from glintru_model.training.trainer import train

NUM_ITEMS = 30
SIZES = {"embedding_dim": 16, "num_heads": 2, "num_blocks": 2, "max_seq_len": 12, "dropout_rate": 0.1}
TRAINING = TrainingConfig(batch_size=8, max_epochs=25, learning_rate=0.01, weight_decay=0, device="cpu")
RECOMMENDERS = {
    "glintru-causal": GlintruRecommender(architecture=GlintruConfig(**SIZES), training=TRAINING),
    "glintru-paper": GlintruRecommender(
        architecture=GlintruConfig(variant="paper", **SIZES),
        training=TRAINING.model_copy(update={"batch_size": 32}),  # samples with one target each
    ),
    "glintru-paper-1-block": GlintruRecommender(
        architecture=GlintruConfig(variant="paper", **{**SIZES, "num_blocks": 1, "kernel_size": 5}), training=TRAINING
    ),
    "glintru-scaled": GlintruRecommender(
        architecture=GlintruConfig(scale_embeddings=True, **SIZES),
        training=TRAINING.model_copy(update={"ema_decay": 0.9}),
    ),
    "sasrec": SasrecRecommender(architecture=SasrecConfig(**SIZES), training=TRAINING),
}


@pytest.fixture(params=RECOMMENDERS)
def config(request):
    return RECOMMENDERS[request.param]


@pytest.fixture
def model(config):
    torch.manual_seed(0)
    model = build_model(config, NUM_ITEMS)
    with torch.no_grad():
        for parameter in model.parameters():  # fresh weights are nearly symmetric; rough ones hide nothing
            parameter += 0.1 * torch.randn_like(parameter)
        model.item_embedding.weight[0] = 0
    return model.eval()


def histories(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    item_ids = torch.randint(1, NUM_ITEMS + 1, (len(lengths), max(lengths)), generator=generator)
    return item_ids * (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]), torch.tensor(lengths)


def test_every_registered_model_is_under_contract():
    assert {config.name for config in RECOMMENDERS.values()} == set(MODELS)


def test_the_interface(model, config):
    item_ids, lengths = histories([7, 12, 1])
    hidden = model.encode(item_ids, lengths)
    assert hidden.shape == (3, 12, 16)
    assert (model.num_items, model.max_seq_len) == (NUM_ITEMS, 12)
    newest = torch.stack([hidden[0, 6], hidden[1, 11], hidden[2, 0]])
    torch.testing.assert_close(model.last_hidden(item_ids, lengths), newest, rtol=1e-5, atol=1e-5)
    scores = model.score(model.last_hidden(item_ids, lengths))
    assert scores.shape == (3, NUM_ITEMS + 1)
    assert scores[:, 1:].isfinite().all()


def test_the_newest_vector_is_the_last_row_of_encode(model):
    lengths = [7, 12, 1, 2, 3, 11]
    item_ids, lengths = histories(lengths)
    for filled in (item_ids, item_ids + (item_ids == 0) * 3):
        last = model.encode(filled, lengths)[torch.arange(6), lengths - 1]
        assert (model.newest(filled, lengths) - last).abs().max() < 1e-5


def test_one_pass_over_the_prefixes_is_a_pass_over_each_its_gradient_too(model):
    if not model.trains_every_position:
        pytest.skip("its prefixes share nothing")
    model.double()
    item_ids, lengths = histories([12, 5, 1, 2])
    at_once = model.prefixes(item_ids + (item_ids == 0) * 3, lengths)[padding_mask(lengths, 12)]
    each = [item_ids[row : row + 1, :end] for row in range(4) for end in range(1, int(lengths[row]) + 1)]
    one_by_one = torch.cat([model.encode(prefix, torch.tensor([prefix.shape[1]]))[:, -1] for prefix in each])
    weights = torch.randn_like(at_once)
    gradients = [
        torch.autograd.grad((rows * weights).sum(), list(model.parameters())) for rows in (at_once, one_by_one)
    ]
    torch.testing.assert_close(at_once, one_by_one, rtol=1e-9, atol=1e-9)
    for in_one_pass, summed in zip(*gradients, strict=True):
        torch.testing.assert_close(in_one_pass, summed, rtol=1e-9, atol=1e-9)


def test_saved_and_loaded_it_scores_the_same(model, config, tmp_path):
    (tmp_path / "vocabulary.arrow").touch()
    save_model(model, config, tmp_path / "vocabulary.arrow", tmp_path / "model")
    loaded, loaded_config = load_model(tmp_path / "model")
    item_ids, lengths = histories([7, 12])
    assert loaded_config == config
    assert torch.equal(loaded.encode(item_ids, lengths), model.encode(item_ids, lengths))


def test_the_future_never_changes_the_past_of_a_causal_model(model):
    item_ids, lengths = histories([12] * 4)
    before = model.encode(item_ids, lengths)
    for t in range(1, 12):
        changed = item_ids.clone()
        changed[:, t:] = item_ids[:, t:] % NUM_ITEMS + 1
        after = model.encode(changed, lengths)
        if model.causal:
            assert torch.equal(after[:, :t], before[:, :t])
        assert (after[:, t:] - before[:, t:]).abs().amax() > 1e-3


def test_the_future_never_reaches_the_gradient_of_the_past(model):
    if not model.causal:
        pytest.skip("trained at the last position alone")
    item_ids = torch.arange(1, 13)[None]  # each item once, so that its row tells its place
    for t in (0, 5, 11):
        model.zero_grad()
        model(item_ids, torch.tensor([12]))[0, t].square().sum().backward()
        touched = model.item_embedding.weight.grad.abs().sum(1) > 0
        assert touched.nonzero().flatten().tolist() == list(range(1, t + 2))


def test_padding_never_changes_a_result(model):
    item_ids, lengths = histories([12, 5, 1, 8])
    padded = model.encode(item_ids, lengths)
    filled = item_ids + (item_ids == 0) * 3  # whatever stands behind the end
    nonsense = model.encode(filled, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = model.encode(item_ids[row : row + 1, :length], lengths[row : row + 1])[0]
        assert (padded[row, :length] - alone).abs().max() < 1e-5
        assert (nonsense[row, :length] - alone).abs().max() < 1e-5


def test_padding_gets_no_gradient_and_stays_zero(model):
    item_ids, lengths = histories([12, 5])
    hidden = model.train()(item_ids, lengths)
    hidden[torch.arange(2), lengths - 1].sum().backward()
    assert not model.item_embedding.weight.grad[0].any()


@pytest.mark.parametrize("method", ["encode", "newest", "prefixes"])
def test_weights_and_embeddings_of_zero_give_finite_results_and_gradients(model, method):
    if method == "prefixes" and not model.trains_every_position:
        pytest.skip("its prefixes share nothing")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    item_ids, lengths = histories([4, 2])
    hidden = getattr(model, method)(item_ids, lengths)
    hidden.square().sum().backward()
    assert hidden.isfinite().all()  # no norm divides 0 by 0
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_evaluation_repeats_exactly_and_training_drops_at_random(model):
    item_ids, lengths = histories([9, 4])
    assert torch.equal(model.encode(item_ids, lengths), model.encode(item_ids, lengths))
    model.train()
    assert not torch.equal(model.encode(item_ids, lengths), model.encode(item_ids, lengths))


def cycles(dataset_of):
    """Users who walk around a ring of items from different places: the next item is certain."""
    return dataset_of([[(start + step) % NUM_ITEMS + 1 for step in range(9)] for start in range(NUM_ITEMS)], NUM_ITEMS)


def hit_rate(dataset):
    def validate(model):
        cases = dataset.cases("validation")
        scores = ModelScorer(model).score_histories(dataset.item_ids, cases.history_starts, cases.history_ends)
        hits = scores.argmax(1) == torch.from_numpy(cases.targets).long()
        return {"ndcg_at_10": hits.double().mean().item()}

    return validate


def test_it_learns_a_tiny_set_by_heart(config, dataset_of):
    dataset = cycles(dataset_of)
    _, result = train(config, dataset, validate=hit_rate(dataset))
    assert result.best_metrics["ndcg_at_10"] == 1.0
    assert result.history[-1].train_loss < 1.0  # chance is log 30 = 3.4


def test_the_seed_decides_the_result(config, dataset_of):
    dataset = cycles(dataset_of)
    short = config.model_copy(update={"training": config.training.model_copy(update={"max_epochs": 2})})
    other = config.model_copy(update={"training": config.training.model_copy(update={"max_epochs": 2, "seed": 1})})
    first, second, third = (
        train(settings, dataset, validate=hit_rate(dataset))[0].state_dict() for settings in (short, short, other)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["item_embedding.weight"], third["item_embedding.weight"])
