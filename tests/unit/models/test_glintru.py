"""GLINT-RU against a NumPy computation of the released layers, written with plain loops and no shared code."""

import math

import numpy as np
import pytest
import torch

from glintru_model.config import GlintruConfig
from glintru_model.errors import ConfigError, DataError
from glintru_model.models.glintru import GLINTRU

NUM_ITEMS = 20


def small_model(variant="causal", *, dtype=torch.float64, seed=0, **settings):
    torch.manual_seed(seed)
    sizes = {"embedding_dim": 12, "num_heads": 3, "num_blocks": 2, "max_seq_len": 16, **settings}
    model = GLINTRU(GlintruConfig(variant=variant, **sizes), NUM_ITEMS)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms too must matter
            parameter += 0.3 * torch.randn_like(parameter)
        model.item_embedding.weight[0] = 0
    return model.to(dtype).eval()


def histories(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    item_ids = torch.randint(1, NUM_ITEMS + 1, (len(lengths), max(lengths)), generator=generator)
    return item_ids * (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]), torch.tensor(lengths)


# ---- the reference: one history of shape (L, D) at a time, without padding


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def dense(x, w, name):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def layer_norm(x, w, name):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-8) * w[f"{name}.weight"] + w[f"{name}.bias"]


def convolve(x, w, name, causal):
    taps = w[f"{name}.weight"]
    offset = len(taps) - 1 if causal else len(taps) // 2
    out = np.tile(w[f"{name}.bias"], (len(x), 1))
    for t in range(len(x)):
        for tap, matrix in enumerate(taps):
            if 0 <= t + tap - offset < len(x):
                out[t] += matrix @ x[t + tap - offset]
    return out


def recurrence(x, w, name):
    dim = x.shape[1]
    w_r, w_z, w_n = w[f"{name}.weight_input"].reshape(3, dim, dim)
    u_r, u_z, u_n = w[f"{name}.weight_hidden"].reshape(3, dim, dim)
    hidden, states = np.zeros(dim), []
    for row in x:
        reset, update = sigmoid(w_r @ row + u_r @ hidden), sigmoid(w_z @ row + u_z @ hidden)
        hidden = (1 - update) * np.tanh(w_n @ row + reset * (u_n @ hidden)) + update * hidden
        states.append(hidden)
    return np.stack(states)


def attend(x, w, name, num_heads, causal):
    dim = x.shape[1]
    head_dim = dim // num_heads
    q, k, v = np.split(dense(x, w, f"{name}.query_key_value"), 3, axis=1)
    q, k = (np.where(y > 0, y, np.expm1(y)) for y in (q, k))
    out = np.zeros_like(x)
    for head in range(num_heads):
        columns = slice(head * head_dim, (head + 1) * head_dim)
        for t in range(len(x)):
            for s in range(t + 1 if causal else len(x)):
                similarity = q[t, columns] @ k[s, columns]
                similarity /= np.linalg.norm(q[t, columns]) * np.linalg.norm(k[s, columns])
                out[t, columns] += similarity * v[s, columns] / math.sqrt(head_dim)
    return layer_norm(dense(out, w, f"{name}.output") + x, w, f"{name}.norm")


def block(x, w, name, num_heads, causal):
    conv = convolve(dense(x, w, f"{name}.recurrent.input"), w, f"{name}.recurrent.conv", causal)
    inner = dense(conv, w, f"{name}.recurrent.gate.0")
    gate = dense(inner * sigmoid(inner), w, f"{name}.recurrent.gate.2")
    crossed = dense(recurrence(conv, w, f"{name}.recurrent.gru"), w, f"{name}.recurrent.channel_crossing")
    recurrent = convolve(gate * crossed, w, f"{name}.recurrent.gated_conv", causal)
    attended = attend(x, w, f"{name}.attention", num_heads, causal)
    alpha = np.exp(w[f"{name}.expert_weights"]) / np.exp(w[f"{name}.expert_weights"]).sum()
    mixed = (alpha[0] * recurrent + alpha[1] * attended) * gelu(dense(x, w, f"{name}.data_gate"))
    hidden = layer_norm(dense(mixed, w, f"{name}.mixed_output") + x, w, f"{name}.norm")
    value, gated = np.split(dense(hidden, w, f"{name}.mlp_value_gate"), 2, axis=1)
    out = dense(value * gelu(gated), w, f"{name}.mlp_output")
    return layer_norm(out + hidden, w, f"{name}.norm")


def reference(model, item_ids):
    w = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    x = w["item_embedding.weight"][item_ids]
    if model.config.scale_embeddings:
        x = x * math.sqrt(x.shape[1])
    for i in range(model.config.num_blocks):
        x = block(x, w, f"blocks.{i}", model.config.num_heads, model.causal)
    return x


@pytest.mark.parametrize("variant", ["causal", "paper"])
@pytest.mark.parametrize(("kernel_size", "scale_embeddings"), [(3, False), (5, True)])
def test_float64_equals_the_reference(variant, kernel_size, scale_embeddings):
    model = small_model(variant, kernel_size=kernel_size, scale_embeddings=scale_embeddings)
    item_ids, lengths = histories([11, 1, 7, 4])
    hidden = model.encode(item_ids, lengths).detach().numpy()
    for row, length in enumerate(lengths.tolist()):
        expected = reference(model, item_ids[row, :length].numpy())
        np.testing.assert_allclose(hidden[row, :length], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("variant", ["causal", "paper"])
def test_float32_equals_the_reference_to_a_ten_thousandth(variant):
    model = small_model(variant, dtype=torch.float32)
    item_ids, lengths = histories([60, 33])
    hidden = model.encode(item_ids, lengths).detach().double().numpy()
    for row, length in enumerate(lengths.tolist()):
        expected = reference(model, item_ids[row, :length].numpy())
        assert np.abs(hidden[row, :length] - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("variant", ["causal", "paper"])
def test_training_gradients_are_those_of_evaluation_where_nothing_is_dropped(variant):
    model = small_model(variant, dropout_rate=0.0).train()
    item_ids, lengths = histories([6, 3])
    parameters = [p for p in model.parameters() if p.dim() > 1]
    torch.manual_seed(1)
    direction = [torch.randn_like(p) for p in parameters]
    weights = torch.randn(2, 6, 12, dtype=torch.float64) * (item_ids > 0)[..., None]

    def loss():
        return (model(item_ids, lengths) * weights).sum()

    slope = sum((g * d).sum() for g, d in zip(torch.autograd.grad(loss(), parameters), direction, strict=True))
    step = 1e-6
    with torch.no_grad():
        for sign in (step, -2 * step):
            for p, d in zip(parameters, direction, strict=True):
                p += sign * d
            if sign > 0:
                above = loss()
        below = loss()
    # the padding row takes part in the direction but has no gradient, nor an effect: padding is out of sight
    assert slope.item() == pytest.approx(((above - below) / (2 * step)).item(), rel=1e-6)


def test_a_future_item_reaches_the_past_in_the_paper_variant_alone():
    item_ids, lengths = histories([8])
    changed = item_ids.clone()
    changed[0, -1] = item_ids[0, -1] % NUM_ITEMS + 1
    for variant, moves in (("causal", False), ("paper", True)):
        model = small_model(variant)
        difference = (model.encode(item_ids, lengths) - model.encode(changed, lengths))[0, :-1].abs().max()
        assert (difference > 1e-6) == moves


def test_released_padding_leaks_as_in_the_release():
    item_ids, lengths = histories([5, 12])
    for released, moves in ((False, False), (True, True)):
        model = small_model("paper", released_padding=released)
        alone = model.encode(item_ids[:1, :5], lengths[:1])
        padded = model.encode(item_ids, lengths)[:1, :5]
        assert ((alone - padded).abs().max() > 1e-4) == moves


@pytest.mark.parametrize("num_blocks", [1, 2])
def test_released_padding_is_the_reference_of_the_padded_row(num_blocks):
    model = small_model("paper", released_padding=True, num_blocks=num_blocks)
    item_ids, lengths = histories([5, 12, 1])
    hidden = model.encode(item_ids, lengths).detach().numpy()
    newest = model.newest(item_ids, lengths).detach().numpy()
    for row, length in enumerate(lengths.tolist()):
        expected = reference(model, item_ids[row].numpy())  # as if padding were an item of embedding 0
        np.testing.assert_allclose(hidden[row], expected, rtol=0, atol=1e-9)
        np.testing.assert_allclose(newest[row], expected[length - 1], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("num_blocks", "kernel_size"), [(1, 3), (2, 1), (3, 4)])
def test_steps_equal_the_encoding_of_the_whole_history(num_blocks, kernel_size):
    model = small_model(dtype=torch.float32, num_blocks=num_blocks, kernel_size=kernel_size)
    item_ids, lengths = histories([300, 300, 300])  # far beyond max_seq_len
    whole = model.encode(item_ids, lengths)
    state = model.initial_state(3)
    sizes = [part.shape for block_state in state for part in block_state]
    with torch.no_grad():
        for t in range(300):
            hidden, state = model.step(item_ids[:, t], state)
            assert (hidden - whole[:, t]).abs().max() < 1e-4 * whole[:, t].abs().max()
    assert [part.shape for block_state in state for part in block_state] == sizes
    assert all(part.dtype == torch.float32 for block_state in state for part in block_state)


def test_a_step_leaves_the_state_before_it_as_it_was():
    model = small_model()
    _, state = model.step(torch.tensor([3, 4]), model.initial_state(2))
    before = [part.clone() for part in state[0]]
    first, _ = model.step(torch.tensor([5, 6]), state)
    second, _ = model.step(torch.tensor([5, 6]), state)
    assert torch.equal(first, second)
    assert all(torch.equal(old, new) for old, new in zip(before, state[0], strict=True))


def test_the_paper_variant_has_no_state():
    with pytest.raises(ConfigError, match=r"'paper' cannot be fed event by event, allowed: causal"):
        small_model("paper").initial_state(1)


@pytest.mark.parametrize("item_id", [0, -1, NUM_ITEMS + 1])
def test_a_step_refuses_an_unknown_item(item_id):
    model = small_model()
    with pytest.raises(DataError, match=rf"item index {item_id}, allowed: 1..{NUM_ITEMS}"):
        model.step(torch.tensor([1, item_id]), model.initial_state(2))
