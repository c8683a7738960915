"""Small untrained models on disk, with integer and with text ids; a registry; versions in it."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from glintru_model.config import GlintruConfig, GlintruRecommender, RegistryConfig, SasrecConfig, SasrecRecommender
from glintru_model.models.files import save_model
from glintru_model.models.registry import build_model
from glintru_model.serving.alias_rule import Contest, Refusal
from glintru_model.serving.recommender import Recommender
from glintru_model.serving.registry import register
from glintru_model.tracking import child_run, connect, open_pipeline_run
from tests.unit.serving.registering import FIRST, server_process

NUM_ITEMS = 30
SIZES = {"max_seq_len": 8, "embedding_dim": 8, "num_heads": 2, "num_blocks": 1}


def write_model(directory, name, item_ids, seed=0):
    configs = {
        "glintru": GlintruRecommender(architecture=GlintruConfig(**SIZES)),
        "sasrec": SasrecRecommender(architecture=SasrecConfig(**SIZES)),
    }
    counts = pa.array(np.arange(len(item_ids), 0, -1))
    vocabulary = pa.record_batch({"item_id": item_ids, "train_count": counts, "recent_train_count": counts})
    source = directory.parent / f"{directory.name}.arrow"
    with pa.OSFile(str(source), "wb") as file, pa.ipc.new_file(file, vocabulary.schema) as writer:
        writer.write(vocabulary)
    torch.manual_seed(seed)
    model = build_model(configs[name], len(item_ids))
    with torch.no_grad():
        model.item_embedding.weight[1:].normal_()  # far apart, so that rankings do not hang on rounding
    save_model(model, configs[name], source, directory)
    return directory


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def glintru_dir(models_dir):
    """Items 100, 101, ... as integers: index i is item 99 + i."""
    return write_model(models_dir / "glintru", "glintru", pa.array(range(100, 100 + NUM_ITEMS)))


@pytest.fixture(scope="session")
def sasrec_dir(models_dir):
    """Items as text."""
    return write_model(models_dir / "sasrec", "sasrec", pa.array([f"B{i:03}" for i in range(NUM_ITEMS)]))


@pytest.fixture(scope="session")
def other_glintru_dir(models_dir):
    """Another training's outcome."""
    return write_model(models_dir / "other", "glintru", pa.array(range(100, 100 + NUM_ITEMS)), seed=1)


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('registry') / 'mlflow.db'}"


@pytest.fixture(scope="module")
def client(uri):
    return connect(uri)


@pytest.fixture
def add(uri, glintru_dir, request, client):
    """Register the model as of some pipeline run, under this test's own name; its judge believes the figures."""

    def add_version(run, validation, *, dataset="data-1", model_dir=glintru_dir):
        def judge(champion):
            assert Recommender.load(champion.model_dir).vocabulary.num_items == 30
            if champion.dataset_hash != dataset:
                return Refusal("another dataset")
            version = client.get_model_version(request.node.originalname, champion.version)
            before = float(version.tags["validation_ndcg_at_10"])
            difference = validation - before
            return Contest("ndcg_at_10", 50, validation, before, difference, difference - 0.01, difference + 0.01, 0.5)

        parent = open_pipeline_run(uri, "registry", "", f"{request.node.name}-{run}", {}, {})
        with child_run(parent, "train") as tracker:
            return register(
                model_dir,
                judge=judge,
                config=RegistryConfig(),
                tracking=tracker.ref,
                model_name=request.node.originalname,
                pipeline_run=f"{request.node.name}-{run}",
                dataset_hash=dataset,
                validation_metrics={"ndcg_at_10": validation},
                test_metrics={"ndcg_at_10": 0.05, "recall_at_10": 0.1},
                tags={"git_commit": "abc"},
            )

    return add_version


@pytest.fixture
def name(request):
    return request.node.originalname


@pytest.fixture(scope="module")
def packed(uri, glintru_dir, sasrec_dir, client):
    """Both kinds of ids, registered once: the addresses of their artifacts."""
    paths = {}
    for name, directory in (("packed-int", glintru_dir), ("packed-text", sasrec_dir)):
        parent = open_pipeline_run(uri, "registry", "", name, {}, {})
        added = register(
            directory,
            tracking=parent,
            model_name=name,
            **FIRST,
            pipeline_run=name,
            dataset_hash="d",
            validation_metrics={"ndcg_at_10": 0.1},
            test_metrics={},
            tags={},
        )
        model_id = client.get_model_version(name, added.version).tags["model_id"]
        paths[name] = client.get_logged_model(model_id).artifact_location.removeprefix("file://")
    return paths


@pytest.fixture(scope="module")
def served(packed, uri, tmp_path_factory):
    arguments = ["models", "serve", "-m", "models:/packed-int@champion", "--env-manager", "local"]
    with server_process(arguments, tmp_path_factory.mktemp("serve"), "/ping", MLFLOW_TRACKING_URI=uri) as port:
        yield port
