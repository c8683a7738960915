"""Both models on a CUDA device against the CPU in float64. Skipped where there is none."""

from copy import deepcopy
from functools import partial

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from glintru_model.config import GlintruConfig, GlintruRecommender, SasrecConfig, SasrecRecommender, TrainingConfig
from glintru_model.data.batches import TrainingBatches
from glintru_model.models.gru import GRU
from glintru_model.models.registry import build_model
from glintru_model.training import cross_entropy as chunked
from glintru_model.training.cross_entropy import cross_entropy
from glintru_model.training.distributed import SingleProcess
from glintru_model.training.losses import build_loss
from glintru_model.training.trainer import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

NUM_ITEMS = 40
SIZES = {"embedding_dim": 32, "num_heads": 2, "max_seq_len": 150, "num_blocks": 2, "dropout_rate": 0.0}
MODELS = {
    "causal": GlintruRecommender(architecture=GlintruConfig(**SIZES)),
    "paper": GlintruRecommender(architecture=GlintruConfig(variant="paper", **SIZES | {"num_blocks": 1})),
    "sasrec": SasrecRecommender(architecture=SasrecConfig(**SIZES)),
}
TRAINED = MODELS | {
    "wide": GlintruRecommender(architecture=GlintruConfig(**SIZES | {"embedding_dim": 128})),  # cuDNN's GRU
    "newest": GlintruRecommender(architecture=GlintruConfig(variant="paper", **SIZES)),  # trained prefix by prefix
}


@pytest.fixture(autouse=True)
def _full_precision():
    before, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(before)
    torch.backends.cudnn.allow_tf32 = cudnn


def relative_error(found, expected):
    return float((found.detach().cpu().double() - expected.detach()).norm() / expected.detach().norm())


def loss_of(model, item_ids, lengths, targets):
    rows, positions = (torch.arange(item_ids.shape[1]).to(lengths) < lengths[:, None]).nonzero(as_tuple=True)
    hidden = model.prefixes(item_ids, lengths)[rows, positions]
    return cross_entropy(hidden, model.item_embedding.weight, targets[rows, positions], label_smoothing=0.1)


@pytest.mark.parametrize("has_kernel", [True, False])
@pytest.mark.parametrize("num_items", [NUM_ITEMS, 2_049, 9_001])  # one block of the kernel, some, some larger ones
def test_cross_entropy_in_chunks_and_blocks_is_that_of_the_cpu(num_items, has_kernel, monkeypatch):
    monkeypatch.setattr(chunked, "GPU_BLOCK_BYTES", 1_000 * 4)
    monkeypatch.setattr(chunked, "MIN_CHUNK_BYTES", 48 * 4)  # the last chunk has 32 rows; up to 20 items a block
    if has_kernel:
        pytest.importorskip("triton")
    else:
        monkeypatch.setattr(chunked, "has_kernels", lambda device: False)
    torch.manual_seed(0)
    exact = [tensor.double().requires_grad_() for tensor in (torch.randn(300, 32), torch.randn(num_items + 1, 32))]
    targets, weights = torch.randint(1, num_items + 1, (300,)), torch.rand(300).double()
    exact_loss = cross_entropy(*exact, targets, weights, label_smoothing=0.1)
    exact_gradients = torch.autograd.grad(exact_loss, exact)
    for dtype, error in ((torch.float32, 1e-4), (torch.bfloat16, 3e-2)):
        found = [tensor.detach().float().cuda().requires_grad_() for tensor in exact]
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            loss = cross_entropy(*found, targets.cuda(), weights.float().cuda(), label_smoothing=0.1)
        assert loss.item() == pytest.approx(exact_loss.item(), rel=error)
        for ours, expected in zip(torch.autograd.grad(loss, found), exact_gradients, strict=True):
            assert relative_error(ours, expected) < error


def test_cross_entropy_takes_logits_of_any_size_and_keeps_what_is_not_a_number():
    hidden, table = torch.randn(70, 32).cuda(), torch.randn(3_001, 32).cuda()
    targets = torch.randint(1, 3_001, (70,)).cuda()
    expected = F.cross_entropy(hidden * 300 @ table[1:].T, targets - 1)
    torch.testing.assert_close(cross_entropy(hidden * 300, table, targets), expected)
    table[7] = torch.nan
    assert cross_entropy(hidden, table, targets).isnan()


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


def loss_of_batch(model, loss, batch):
    if model.trains_every_position:
        hidden = model.prefixes(batch.item_ids, batch.lengths)[batch.rows, batch.positions]
    else:
        hidden = model.newest(batch.item_ids, batch.lengths)
    return loss(hidden, model.item_embedding.weight, batch.targets, batch.weights)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", TRAINED)
def test_training_goes_down_the_same_curve_and_resumes(name, precision, dataset_of, tmp_path):
    histories = [[1 + (user + step) % NUM_ITEMS for step in range(5 + user % 30)] for user in range(60)]
    dataset = dataset_of(histories, NUM_ITEMS)

    def curve(device, precision="float32", folder=None, stop_after=4):
        def stop(result):
            if result.epoch == stop_after < 4:
                raise KeyboardInterrupt

        training = TrainingConfig(
            device=device, precision=precision, max_epochs=4, batch_size=8, learning_rate=0.002, ema_decay=0.9
        )
        config = TRAINED[name].model_copy(update={"training": training})
        _, result = train(
            config, dataset, validate=lambda model: {"ndcg_at_10": 0.5}, on_epoch=stop, checkpoint_dir=folder
        )
        return [epoch.train_loss for epoch in result.history]

    expected = curve("cpu")
    found = curve("cuda", precision)
    assert expected[-1] < 0.8 * expected[0]
    assert found == pytest.approx(expected, rel=0.02 if precision == "float32" else 0.1, abs=0.02)
    with pytest.raises(KeyboardInterrupt):
        curve("cuda", precision, tmp_path / "checkpoints", stop_after=2)
    assert curve("cuda", precision, tmp_path / "checkpoints") == pytest.approx(found, rel=0.02, abs=0.02)


@pytest.mark.parametrize("loss", ["cross_entropy", "sampled_softmax", "gbce", "bce"])
@pytest.mark.parametrize("name", TRAINED)
def test_a_graph_gives_the_gradient_of_the_plain_step(name, loss, dataset_of):
    """Negatives are drawn anew each time: with so many of them the gradients are close, not equal."""
    dataset = dataset_of([[1 + (user + step) % NUM_ITEMS for step in range(5 + user % 30)] for user in range(60)], 40)
    device, training = torch.device("cuda"), TrainingConfig(loss=loss, num_negatives=20_000, label_smoothing=0.1)
    torch.manual_seed(0)
    plain_model = build_model(TRAINED[name], NUM_ITEMS).cuda()
    graph_model = deepcopy(plain_model)  # whose gradients stay in their place
    loss_of = build_loss(training, dataset.vocabulary.train_counts, device)
    every = plain_model.trains_every_position
    batches = TrainingBatches(dataset, max_seq_len=150, batch_size=20, every_position=every, seed=0, device=device)

    def gradient(backward, model, batch):
        loss = float(backward(model, partial(loss_of_batch, model, loss_of), batch))
        return loss, torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    plain, graphed = SingleProcess(torch.device("cpu")).backward, SingleProcess(device).backward
    for _ in range(3):  # without a graph, captured, replayed
        for batch in batches.epoch(1):
            (found_loss, found), (loss_value, expected) = (
                gradient(graphed, graph_model, batch),
                gradient(plain, plain_model, batch),
            )
            assert found_loss == pytest.approx(loss_value, rel=1e-5 if loss == "cross_entropy" else 0.02)
            assert relative_error(found, expected.cpu().double()) < (1e-4 if loss == "cross_entropy" else 0.2)


def test_a_replayed_graph_draws_other_dropout_and_the_same_from_the_same_seed(dataset_of):
    dataset = dataset_of([[1 + (user + step) % NUM_ITEMS for step in range(12)] for user in range(16)], NUM_ITEMS)
    config = MODELS["causal"].architecture.model_copy(update={"dropout_rate": 0.5})
    model = build_model(GlintruRecommender(architecture=config), NUM_ITEMS).cuda()
    device = torch.device("cuda")
    [batch] = TrainingBatches(
        dataset, max_seq_len=150, batch_size=16, every_position=True, seed=0, device=device
    ).epoch(1)
    backward = SingleProcess(device).backward

    def drawn(seed):
        torch.manual_seed(seed)
        return [float(backward(model, partial(loss_of_batch, model, cross_entropy), batch)) for _ in range(3)]

    drawn(0)  # captures
    first = drawn(1)
    assert len(set(first)) == 3
    assert drawn(1) == pytest.approx(first, rel=1e-6)
    assert drawn(2) != pytest.approx(first, rel=1e-6)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("name", MODELS)
def test_it_trains_on_the_device_that_is_named(name, dataset_of):
    dataset = dataset_of([[1 + (user + step) % NUM_ITEMS for step in range(12)] for user in range(40)], NUM_ITEMS)
    training = TrainingConfig(device="cuda:1", max_epochs=20, batch_size=8, learning_rate=0.01)
    config = MODELS[name].model_copy(update={"training": training})
    model, result = train(config, dataset, validate=lambda model: {"ndcg_at_10": 0.5})
    assert model.item_embedding.weight.device == torch.device("cuda:1")
    assert result.history[-1].train_loss < 0.5 * result.history[0].train_loss


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
