"""The compiled file: it parses into KFP's own messages, and its DAG is the one we mean."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec, PlatformSpec

from glintru_model.config import PipelineConfig
from glintru_model.errors import ConfigError
from pipelines import run
from pipelines.compile import compile_pipeline
from pipelines.git import image_tag
from pipelines.resources import DATA_SECRET_KEYS, DATA_SECRET_NAME, PROFILES, SECRET_KEYS, SECRET_NAME

ROOT = Path(__file__).parents[2]
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
    # It is given every section that may name an earlier output.
    read = dag["resolve-source"]["inputs"]["parameters"]
    assert {read[name]["componentInputParameter"] for name in read} >= {"ingest", "sequences", "glintru", "sasrec"}


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
def test_steps_that_read_the_whole_log_have_memory_for_it_and_no_gpu(compiled, task):
    assert executor(compiled["gpu"], task)["resources"]["resourceMemoryLimit"] == "32Gi"
    assert "accelerator" not in executor(compiled["gpu"], task)["resources"]
    placed = compiled["gpu"][1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{task}"]
    assert "tolerations" not in placed


def leaves_of(documents):
    dags = [documents[0]["root"]["dag"]]
    dags += [part["dag"] for part in documents[0]["components"].values() if "dag" in part]
    return [t for dag in dags for t in dag["tasks"].values() if "for-loop" not in t["componentRef"]["name"]]


def placed_of(documents):
    return documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


@pytest.mark.parametrize(("profile", "retries"), [("kind", 1), ("gpu", 3)])
def test_every_task_on_a_cluster_retries_with_backoff_has_a_timeout_limits_and_labels(compiled, profile, retries):
    leaves, placed = leaves_of(compiled[profile]), placed_of(compiled[profile])
    assert len(leaves) == len(placed) == 15
    for task in leaves:
        executor_label = task["componentRef"]["name"].replace("comp-", "exec-")
        settings = placed[executor_label]
        timeout = int(settings["activeDeadlineSeconds"])
        assert 3600 <= timeout <= 24 * 3600
        policy = dict(task["retryPolicy"])
        # the backend's deadline of all attempts together: the last one has its whole time, too
        deadline = int(policy.pop("backoffMaxDuration").removesuffix("s"))
        assert deadline >= (retries + 1) * timeout + 30 * (2**retries - 1)
        assert policy == {"maxRetryCount": retries, "backoffDuration": "30s", "backoffFactor": 2.0}
        assert settings["imagePullPolicy"] == "IfNotPresent"
        labels = settings["podMetadata"]["labels"]
        assert labels["glintru.dev/task"] == "true"
        assert labels["glintru.dev/step"] == task["taskInfo"]["name"].replace(" ", "-")
    for entry in compiled[profile][0]["deploymentSpec"]["executors"].values():
        resources = entry["container"]["resources"]
        assert resources["resourceMemoryRequest"] == resources["resourceMemoryLimit"]
        assert {"resourceCpuRequest", "resourceCpuLimit"} <= resources.keys()
        threads = {"name": "OMP_NUM_THREADS", "value": resources["resourceCpuLimit"]}
        assert threads in entry["container"]["env"]


def test_credentials_come_from_secrets_and_only_the_steps_that_read_the_log_get_its_keys(compiled):
    tracked = {SECRET_NAME: set(SECRET_KEYS)}
    for name, settings in placed_of(compiled["gpu"]).items():
        found = {s["secretName"]: {entry["envVar"] for entry in s["keyToEnv"]} for s in settings["secretAsEnv"]}
        reads_log = name in ("exec-resolve-source", "exec-ingest-interactions")
        assert found == ({**tracked, DATA_SECRET_NAME: set(DATA_SECRET_KEYS)} if reads_log else tracked)
        assert all(secret["optional"] for secret in settings["secretAsEnv"])


def test_no_credential_of_the_environment_reaches_the_compiled_file(tmp_path, monkeypatch):
    for key in (*SECRET_KEYS, *DATA_SECRET_KEYS, "KFP_TOKEN", "KFP_COOKIE"):
        monkeypatch.setenv(key, "marked-secret")
    text = compile_pipeline(CONFIG, PROFILES["gpu"], tmp_path / "p.yaml").read_text()
    assert "marked-secret" not in text


def test_the_number_of_tuning_workers_at_a_time_is_a_parameter(tmp_path):
    path = compile_pipeline(CONFIG, PROFILES["gpu"].with_parallelism(7), tmp_path / "p.yaml")
    dag = next(yaml.safe_load_all(path.read_text()))["root"]["dag"]["tasks"]
    limits = [t["iteratorPolicy"]["parallelismLimit"] for t in dag.values() if "iteratorPolicy" in t]
    assert limits == [7, 7]
    with pytest.raises(ConfigError, match="parallelism 0, allowed: 1 to 256"):
        PROFILES["gpu"].with_parallelism(0)


def test_the_number_of_gpus_of_a_final_training_is_a_parameter(tmp_path):
    path = compile_pipeline(CONFIG, PROFILES["gpu"].with_training_gpus(4), tmp_path / "p.yaml")
    documents = list(yaml.safe_load_all(path.read_text()))
    asked = {name: executor(documents, f"{name}-recommender")["resources"] for name in ("tune", "train", "evaluate")}
    counts = {name: resources["accelerator"]["resourceCount"] for name, resources in asked.items()}
    assert counts == {"tune": "1", "train": "4", "evaluate": "1"}
    keys = ("resourceCpuRequest", "resourceCpuLimit", "resourceMemoryRequest", "resourceMemoryLimit")
    assert [asked["train"][key] for key in keys] == ["24", "32", "128Gi", "128Gi"]
    assert [asked["tune"][key] for key in keys] == ["6", "8", "32Gi", "32Gi"]
    assert {"name": "OMP_NUM_THREADS", "value": "8"} in executor(documents, "train-recommender")["env"]  # a process's
    shared = placed_of(documents)["exec-train-recommender"]["emptyDirMounts"][0]
    assert (shared["mountPath"], shared["medium"], shared["sizeLimit"]) == ("/dev/shm", "Memory", "8Gi")


def test_gpus_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="GPUs 0, allowed: 1 to 64"):
        PROFILES["gpu"].with_training_gpus(0)
    with pytest.raises(ConfigError, match="GPUs 2: profile 'kind' has none, allowed: PROFILE=gpu"):
        PROFILES["kind"].with_training_gpus(2)


def test_the_image_is_named_as_the_build_names_it(tmp_path):
    for accelerator, profile in (("cpu", "kind"), ("cuda", "gpu")):
        built = subprocess.run(
            [ROOT / "infra/image/build.sh", "name"],
            env={**os.environ, "ACCELERATOR": accelerator, "REGISTRY": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        path = compile_pipeline(CONFIG, PROFILES[profile], tmp_path / f"{profile}.yaml")
        spec = next(yaml.safe_load_all(path.read_text()))
        images = {entry["container"]["image"] for entry in spec["deploymentSpec"]["executors"].values()}
        assert images == {built}
        assert image_tag() in built


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


@pytest.mark.parametrize(
    "source", ["https://bob:hunter2@example.org/log.csv", "https://example.org/log.csv?X-Amz-Signature=hunter2&x=1"]
)
def test_an_address_with_a_secret_never_reaches_the_compiled_file(source, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run.main(["--compile-only", "--data", source]) == 2
    shown = capsys.readouterr()
    assert "ingest.source" in shown.err
    assert "hunter2" not in shown.err + shown.out
    assert list(tmp_path.iterdir()) == []
