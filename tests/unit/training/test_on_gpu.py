"""Both models on a CUDA device against the CPU in float64. Skipped where there is none."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from glintru_model.config import GlintruConfig, GlintruRecommender, SasrecConfig, SasrecRecommender, TrainingConfig
from glintru_model.models.layers import GRU
from glintru_model.models.registry import build_model
from glintru_model.training.losses import cross_entropy
from glintru_model.training.trainer import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

NUM_ITEMS = 40
SIZES = {"embedding_dim": 32, "num_heads": 2, "max_seq_len": 150, "num_blocks": 2, "dropout_rate": 0.0}
MODELS = {
    "causal": GlintruRecommender(architecture=GlintruConfig(**SIZES)),
    "paper": GlintruRecommender(architecture=GlintruConfig(variant="paper", **SIZES | {"num_blocks": 1})),
    "sasrec": SasrecRecommender(architecture=SasrecConfig(**SIZES)),
}


@pytest.fixture(autouse=True)
def _full_precision():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def relative_error(found, expected):
    return float((found.detach().cpu().double() - expected.detach()).norm() / expected.detach().norm())


def loss_of(model, item_ids, lengths, targets):
    rows, positions = (torch.arange(item_ids.shape[1]).to(lengths) < lengths[:, None]).nonzero(as_tuple=True)
    hidden = model.prefixes(item_ids, lengths)[rows, positions]
    return cross_entropy(hidden, model.item_embedding.weight, targets[rows, positions], 0.1)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("autocast", "hidden_error", "gradient_error"), [(False, 1e-4, 1e-4), (True, 3e-2, 0.15)])
def test_vectors_and_gradients_are_those_of_the_cpu(name, autocast, hidden_error, gradient_error):
    torch.manual_seed(0)
    exact = build_model(MODELS[name], NUM_ITEMS).double()
    found = build_model(MODELS[name], NUM_ITEMS)
    found.load_state_dict(exact.state_dict())
    found = found.cuda()
    lengths = torch.tensor([150, 3, 77, 150, 1, 128])
    item_ids, targets = torch.randint(1, NUM_ITEMS + 1, (2, 6, 150)).unbind()
    item_ids = item_ids * (torch.arange(150) < lengths[:, None])
    exact_loss = loss_of(exact, item_ids, lengths, targets)
    exact_loss.backward()
    with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
        vectors = found.newest(item_ids.cuda(), lengths.cuda())
        loss = loss_of(found, item_ids.cuda(), lengths.cuda(), targets.cuda())
    loss.backward()
    assert relative_error(vectors, exact.newest(item_ids, lengths)) < hidden_error
    assert loss.item() == pytest.approx(exact_loss.item(), rel=hidden_error)
    gradient, expected = (torch.cat([p.grad.flatten() for p in model.parameters()]) for model in (found, exact))
    assert relative_error(gradient, expected) < gradient_error


@pytest.mark.parametrize("dim", [8, 48, 64, 128])  # up to 64 by our own kernel
@pytest.mark.parametrize(("length", "batch"), [(2, 1), (200, 37)])
def test_the_recurrence_and_its_gradients_are_those_of_the_cpu(dim, length, batch):
    torch.manual_seed(0)
    exact, found = GRU(dim).double(), GRU(dim)
    found.load_state_dict(exact.state_dict())
    found = found.cuda()
    x, grad = torch.randn(2, length, batch, dim, dtype=torch.float64).unbind()
    x_cuda = x.float().cuda().requires_grad_()
    x.requires_grad_()
    expected, states = exact(x), found(x_cuda)
    expected.backward(grad)
    states.backward(grad.float().cuda())
    assert relative_error(states, expected) < 1e-5
    assert relative_error(x_cuda.grad, x.grad) < 1e-4
    for name in ("weight_input", "weight_hidden"):
        assert relative_error(getattr(found, name).grad, getattr(exact, name).grad) < 1e-4


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
def test_training_goes_down_the_same_curve_and_resumes(name, precision, dataset_of, tmp_path):
    histories = [[1 + (user + step) % NUM_ITEMS for step in range(5 + user % 30)] for user in range(60)]
    dataset = dataset_of(histories, NUM_ITEMS)

    def curve(device, precision="float32", folder=None, stop_after=4):
        def stop(result):
            if result.epoch == stop_after < 4:
                raise KeyboardInterrupt

        training = TrainingConfig(
            device=device, precision=precision, max_epochs=4, batch_size=8, learning_rate=0.01, num_processes=1
        )
        config = MODELS[name].model_copy(update={"training": training})
        _, result = train(
            config, dataset, validate=lambda model: {"ndcg_at_10": 0.5}, on_epoch=stop, checkpoint_dir=folder
        )
        return [epoch.train_loss for epoch in result.history]

    expected = curve("cpu")
    found = curve("cuda", precision)
    assert expected[-1] < 0.8 * expected[0]
    assert found == pytest.approx(expected, rel=0.02 if precision == "float32" else 0.1)
    with pytest.raises(KeyboardInterrupt):
        curve("cuda", precision, tmp_path / "checkpoints", stop_after=2)
    assert curve("cuda", precision, tmp_path / "checkpoints") == pytest.approx(found, rel=0.01)


def test_a_step_equals_the_encoding():
    torch.manual_seed(0)
    model = build_model(MODELS["causal"], NUM_ITEMS).cuda().eval()
    item_ids = torch.randint(1, NUM_ITEMS + 1, (3, 300), device="cuda")
    state = model.initial_state(3)
    with torch.inference_mode():
        for event in item_ids.T:
            hidden, state = model.step(event, state)
        encoded = model(item_ids, torch.full((3,), 300, device="cuda"))[:, -1]
    assert F.cosine_similarity(hidden, encoded).min() > 1 - 1e-6
    assert relative_error(hidden, encoded.cpu().double()) < 1e-4
