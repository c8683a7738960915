"""The compiled file: it parses into KFP's own messages, and its DAG is the one we mean."""

import json

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec, PlatformSpec

from glintru_model.config import PipelineConfig
from pipelines.compile import compile_pipeline
from pipelines.resources import PROFILES, SECRET_KEYS

MODELS = ("glintru", "sasrec")
CONFIG = PipelineConfig()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiled")
    return {
        name: list(yaml.safe_load_all(compile_pipeline(CONFIG, profile, folder / f"{name}.yaml").read_text()))
        for name, profile in PROFILES.items()
    }


def tasks_of(spec):
    """Map every task's display name to (display names it waits for, component), loops opened."""
    shown, found = {}, {}

    def walk(dag, inherited):
        names = {key: task["taskInfo"]["name"] for key, task in dag["tasks"].items()}
        shown.update(names)
        for key, task in dag["tasks"].items():
            waits = {names[other] for other in task.get("dependentTasks", [])} | inherited
            component = spec["components"][task["componentRef"]["name"]]
            if "dag" in component:
                walk(component["dag"], waits)
                found[names[key]] = (waits, "loop")
            else:
                found[names[key]] = (waits, task["componentRef"]["name"])

    walk(spec["root"]["dag"], set())
    return found


@pytest.mark.parametrize("profile", PROFILES)
def test_it_parses_into_kfps_messages(compiled, profile):
    documents = compiled[profile]
    spec = json_format.ParseDict(documents[0], PipelineSpec())
    assert spec.pipeline_info.name == "sequential-recommenders"
    platform = json_format.ParseDict(documents[1] if len(documents) > 1 else {}, PlatformSpec())
    assert ("kubernetes" in platform.platforms) == (profile != "local")


def test_the_dag_is_the_one_we_mean(compiled):
    tasks = {name: waits for name, (waits, _) in tasks_of(compiled["local"][0]).items()}
    assert tasks["resolve source"] == set()
    assert tasks["start run"] == {"resolve source"}
    assert tasks["ingest interactions"] == {"resolve source"}
    assert tasks["build sequences"] == {"resolve source", "ingest interactions"}
    for model in MODELS:
        assert tasks[f"create study {model}"] == {"start run"}
        assert tasks[f"tune {model}"] >= {f"create study {model}", "build sequences", "start run"}
        assert f"create study {model}" in tasks[f"select {model}"]
        assert tasks[f"train {model}"] == {f"select {model}", "build sequences", "start run"}
        assert tasks[f"evaluate {model}"] == {f"train {model}", "build sequences", "start run"}
    ends = {f"{step} {model}" for step in ("select", "train", "evaluate") for model in MODELS}
    assert tasks["compare and register"] == ends | {"start run", "build sequences", "ingest interactions"}


def test_every_profile_is_the_same_dag(compiled):
    local = tasks_of(compiled["local"][0])
    assert all(tasks_of(documents[0]) == local for documents in compiled.values())


def test_only_steps_without_side_effects_are_cached_and_their_key_holds_the_fingerprint(compiled):
    dag = compiled["gpu"][0]["root"]["dag"]["tasks"]
    cached = {key for key, task in dag.items() if task.get("cachingOptions", {}).get("enableCache")}
    assert cached == {"ingest-interactions", "build-sequences"}
    for key in cached:
        source = dag[key]["inputs"]["parameters"]["fingerprint"]["taskOutputParameter"]["producerTask"]
        assert source == "resolve-source"


def executor(documents, task):
    return documents[0]["deploymentSpec"]["executors"][f"exec-{task}"]["container"]


@pytest.mark.parametrize(
    "task", ["tune-recommender", "tune-recommender-2", "train-recommender", "evaluate-recommender-2"]
)
def test_training_steps_ask_for_the_gpu_pool(compiled, task):
    container = executor(compiled["gpu"], task)
    assert container["resources"]["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert container["resources"]["accelerator"]["resourceCount"] == "1"
    placed = compiled["gpu"][1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{task}"]
    assert placed["nodeSelector"]["labels"] == {"glintru.dev/pool": "gpu"}
    assert placed["tolerations"] == [{"effect": "NoSchedule", "key": "nvidia.com/gpu", "operator": "Exists"}]
    assert placed["emptyDirMounts"][0]["mountPath"] == "/dev/shm"


@pytest.mark.parametrize("task", ["ingest-interactions", "build-sequences", "compare-and-register"])
def test_other_steps_take_no_gpu(compiled, task):
    assert "accelerator" not in executor(compiled["gpu"], task)["resources"]
    placed = compiled["gpu"][1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{task}"]
    assert "tolerations" not in placed


def test_every_task_on_a_cluster_retries_and_reads_credentials_from_the_secret(compiled):
    dags = [compiled["gpu"][0]["root"]["dag"]]
    dags += [c["dag"] for c in compiled["gpu"][0]["components"].values() if "dag" in c]
    leaves = [t for dag in dags for t in dag["tasks"].values() if "for-loop" not in t["componentRef"]["name"]]
    assert len(leaves) == 15
    assert all(task["retryPolicy"]["maxRetryCount"] == 3 for task in leaves)
    placed = compiled["gpu"][1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert len(placed) == 15
    for settings in placed.values():
        (secret,) = settings["secretAsEnv"]
        assert {entry["envVar"] for entry in secret["keyToEnv"]} == set(SECRET_KEYS)


def test_every_task_runs_the_chosen_image_and_installs_nothing(tmp_path):
    path = compile_pipeline(CONFIG, PROFILES["gpu"], tmp_path / "p.yaml", image="registry.example/python-glintru:7")
    spec = next(yaml.safe_load_all(path.read_text()))
    containers = [entry["container"] for entry in spec["deploymentSpec"]["executors"].values()]
    assert {container["image"] for container in containers} == {"registry.example/python-glintru:7"}
    assert not any("pip install" in json.dumps(container) for container in containers)
    assert [child.name for child in tmp_path.iterdir()] == ["p.yaml"]


def test_the_configs_sections_are_the_parameters_defaults(compiled):
    parameters = compiled["gpu"][0]["root"]["inputDefinitions"]["parameters"]
    assert json.loads(parameters["sasrec"]["defaultValue"]) == CONFIG.models.sasrec.model_dump()
    assert json.loads(parameters["settings"]["defaultValue"]) == json.loads(CONFIG.model_dump_json())
    assert parameters["tuning_workers"]["defaultValue"] == [0.0, 1.0]
