import json
import resource

import pytest
import torch
from safetensors.torch import save_file

from glintru_model.config import GlintruConfig, GlintruRecommender
from glintru_model.errors import DataError, StorageError
from glintru_model.models.files import load_model, save_model
from glintru_model.models.registry import build_model

CONFIG = GlintruRecommender(architecture=GlintruConfig(embedding_dim=8, num_heads=2, max_seq_len=5))


@pytest.fixture
def saved(tmp_path):
    vocabulary = tmp_path / "vocabulary.arrow"
    vocabulary.write_bytes(b"the vocabulary's bytes")
    model = build_model(CONFIG, 10)
    save_model(model, CONFIG, vocabulary, tmp_path / "model")
    return model, tmp_path / "model"


def test_what_is_saved_is_what_is_loaded(saved):
    model, directory = saved
    loaded, config = load_model(directory)
    assert config == CONFIG
    assert not loaded.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert (directory / "vocabulary.arrow").read_bytes() == b"the vocabulary's bytes"


def test_saving_again_replaces_the_folder_and_leaves_nothing_else(saved, tmp_path):
    _, directory = saved
    (directory / "stale").touch()
    other = build_model(CONFIG, 10)
    save_model(other, CONFIG, tmp_path / "vocabulary.arrow", directory)
    assert torch.equal(load_model(directory)[0].item_embedding.weight, other.item_embedding.weight)
    assert sorted(path.name for path in directory.iterdir()) == ["config.json", "model.safetensors", "vocabulary.arrow"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "vocabulary.arrow"]


def test_without_a_vocabulary_nothing_is_written(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.arrow: no such file"):
        save_model(build_model(CONFIG, 10), CONFIG, tmp_path / "nowhere.arrow", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_leaves_the_model_before(saved, tmp_path):
    before, directory = saved
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))  # larger files are refused, as by a full disk
    try:
        with pytest.raises(StorageError, match=r"model\.safetensors: cannot write: .*File too large"):
            save_model(build_model(CONFIG, 10), CONFIG, tmp_path / "vocabulary.arrow", directory)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert torch.equal(load_model(directory)[0].item_embedding.weight, before.item_embedding.weight)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "vocabulary.arrow"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocabulary.arrow"])
def test_a_missing_file_is_named(saved, name):
    _, directory = saved
    (directory / name).unlink()
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        load_model(directory)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("keep", [0, 20, -3])
def test_a_truncated_file_is_named(saved, name, keep):
    _, directory = saved
    path = directory / name
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=f"{name}: not a"):
        load_model(directory)


@pytest.mark.parametrize("damage", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(saved, damage):
    model, directory = saved
    with torch.no_grad():
        model.item_embedding.weight[3, 1] = damage
    save_file(model.state_dict(), directory / "model.safetensors")
    with pytest.raises(DataError, match=r"model\.safetensors: item_embedding\.weight holds numbers"):
        load_model(directory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_items": 11}, r"model\.safetensors: does not fit config\.json: size mismatch for item_embedding"),
        ({"num_items": "many"}, r"config\.json: expected the keys num_items and recommender"),
        ({"recommender": {"name": "bert4rec"}}, r"config\.json: .*bert4rec"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(saved, change, message):
    _, directory = saved
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match=message):
        load_model(directory)
