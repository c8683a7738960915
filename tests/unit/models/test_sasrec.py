"""SASRec against a NumPy computation, written with plain loops and no shared code."""

import math

import numpy as np
import pytest
import torch

from glintru_model.config import SasrecConfig
from glintru_model.errors import DataError
from glintru_model.models.sasrec import SASRec

NUM_ITEMS = 20


def small_model(dtype=torch.float64):
    torch.manual_seed(0)
    model = SASRec(SasrecConfig(embedding_dim=12, num_heads=3, num_blocks=2, max_seq_len=16), NUM_ITEMS)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms too must matter
            parameter += 0.3 * torch.randn_like(parameter)
        model.item_embedding.weight[0] = 0
    return model.to(dtype).eval()


def dense(x, w, name):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def layer_norm(x, w, name):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-8) * w[f"{name}.weight"] + w[f"{name}.bias"]


def attend(x, w, name, num_heads):
    head_dim = x.shape[1] // num_heads
    q, k, v = np.split(dense(x, w, f"{name}.query_key_value"), 3, axis=1)
    out = np.zeros_like(x)
    for head in range(num_heads):
        columns = slice(head * head_dim, (head + 1) * head_dim)
        for t in range(len(x)):
            scores = np.exp(k[: t + 1, columns] @ q[t, columns] / math.sqrt(head_dim))
            out[t, columns] = scores / scores.sum() @ v[: t + 1, columns]
    return dense(out, w, f"{name}.output")


def reference(model, item_ids):
    w = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    x = w["item_embedding.weight"][item_ids] * math.sqrt(12) + w["positions.weight"][: len(item_ids)]
    for i in range(2):
        x = x + attend(layer_norm(x, w, f"blocks.{i}.attention_norm"), w, f"blocks.{i}", 3)
        inner = np.maximum(dense(layer_norm(x, w, f"blocks.{i}.network_norm"), w, f"blocks.{i}.network_in"), 0)
        x = x + dense(inner, w, f"blocks.{i}.network_out")
    return layer_norm(x, w, "norm")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_equals_the_reference(dtype, tolerance):
    model = small_model(dtype)
    item_ids = torch.randint(1, NUM_ITEMS + 1, (4, 16), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([16, 1, 9, 4])
    hidden = model.encode(item_ids, lengths).detach().double().numpy()
    for row, length in enumerate(lengths.tolist()):
        expected = reference(model, item_ids[row, :length].numpy())
        assert np.abs(hidden[row, :length] - expected).max() < tolerance * np.abs(expected).max()


def test_a_history_longer_than_the_positions_is_refused():
    with pytest.raises(DataError, match=r"length 17, SASRec has positions for max_seq_len 16"):
        small_model().encode(torch.ones(1, 17, dtype=torch.long), torch.tensor([17]))
