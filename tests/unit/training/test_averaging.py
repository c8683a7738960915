"""The moving average of weights, followed by hand."""

import pytest
import torch

from glintru_model.config import GlintruConfig, GlintruRecommender
from glintru_model.models.registry import build_model
from glintru_model.training.averaging import build_averaging


def model_of(value):
    architecture = GlintruConfig(embedding_dim=4, num_heads=2, max_seq_len=4)
    model = build_model(GlintruRecommender(architecture=architecture), num_items=3)
    return filled(model, value)


def filled(model, value):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


def value_of(model):
    values = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    assert (values - values[0]).abs().max() < 1e-6
    return values[0].item()


@pytest.mark.parametrize(
    ("decay", "expected"),
    # the average moves by 1 - min(decay, (1 + n) / (10 + n)) at the n-th step after the first
    [(0.1, [1.0, 1.9, 2.89]), (0.999, [1.0, 1 + 9 / 11, 1 + 9 / 11 + (2 - 9 / 11) * 9 / 12])],
)
def test_the_first_steps_by_hand(decay, expected):
    model = model_of(0.0)
    averaging = build_averaging(model, decay)
    seen = []
    for value in (1.0, 2.0, 3.0):
        filled(model, value)
        averaging.update()
        seen.append(value_of(averaging.model))
        assert value_of(model) == value  # training goes on from its own weights
    assert seen == pytest.approx(expected)


def test_after_many_steps_a_step_counts_one_minus_the_decay():
    model = model_of(1.0)
    averaging = build_averaging(model, 0.9)
    for _ in range(200):
        averaging.update()
    filled(model, 2.0)
    averaging.update()
    assert value_of(averaging.model) == pytest.approx(1.1)


def test_it_goes_on_from_its_state():
    model = model_of(1.0)
    whole, stopped = build_averaging(model, 0.9), build_averaging(model, 0.9)
    for averaging in (whole, stopped):
        averaging.update()
        averaging.update()
    resumed = build_averaging(model_of(7.0), 0.9)
    resumed.load_state_dict(stopped.state_dict())
    filled(model, 3.0)
    whole.update()
    resumed._trained = model
    resumed.update()
    assert value_of(resumed.model) == value_of(whole.model)


def test_without_decay_the_weights_are_the_models_own():
    model = model_of(1.0)
    averaging = build_averaging(model, 0.0)
    averaging.update()
    assert averaging.model is model
    assert averaging.state_dict() == {}
