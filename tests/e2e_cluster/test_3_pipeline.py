"""The complete pipeline in containers of the project's image, against the real services; and what must fail, fails."""

import json
import os

import pytest
from harness.runner import containers, run_compiled
from harness.services import ADDRESSES

from glintru_model.config import PipelineConfig
from glintru_model.config_io import load_pipeline_config
from pipelines.compile import compile_pipeline
from pipelines.resources import PROFILES

RUN_NAME = "e2e-1"
CONTROL_RUNS = 6


@pytest.fixture(scope="session")
def config(work) -> PipelineConfig:
    """A small run of everything."""
    settings = {
        "name": "e2e",
        "ingest": {
            "synthetic": {"num_users": 200, "num_items": 60, "num_clusters": 6, "min_length": 8, "max_length": 16}
        },
        "models": {
            model: {
                "architecture": {"max_seq_len": 16, "embedding_dim": 16, "num_heads": 2},
                "training": {"max_epochs": 2, "batch_size": 64, "num_threads": 1},
            }
            for model in ("glintru", "sasrec")
        },
        "tuning": {"num_trials": 2, "num_workers": 2, "max_epochs": 1},
        "evaluation": {"bootstrap_samples": 100},
    }
    settings["models"]["sasrec"]["training"]["num_processes"] = 2
    path = work / "e2e.yaml"
    path.write_text(json.dumps(settings))
    return load_pipeline_config(path, {})


@pytest.fixture(scope="session")
def in_containers(services, work):
    def run(package, arguments, name, environment=None):
        variables = {**services.credentials, "GIT_PYTHON_REFRESH": "quiet", **(environment or {})}
        assert not [key for key in variables if key.startswith("AWS_")]  # tasks hold no keys of the store
        with containers(work / f"tasks-{name}", ADDRESSES, variables):
            return run_compiled(package, arguments, work / f"{name}.log")

    return run


@pytest.fixture(scope="session")
def outputs(in_containers, images, config, work):
    """Run the file that would be submitted to kind."""
    package = compile_pipeline(config, PROFILES["kind"], work / "pipeline.yaml", images["task"])
    try:
        return in_containers(package, {"run_name": RUN_NAME}, "pipeline")
    except RuntimeError as error:
        lines = [line for line in (work / "pipeline.log").read_text().splitlines() if line.strip()]
        raise AssertionError("\n".join([str(error), *lines[-60:]])) from error


@pytest.fixture(scope="session")
def ask_mlflow(services, images, outputs):
    """Ask as a task would: from a container, by the in-cluster name, without keys of the store."""

    def ask(code):
        variables = [part for k, v in services.credentials.items() for part in ("--env", f"{k}={v}")]
        program = (
            "import os, json, mlflow; from mlflow import MlflowClient; client = MlflowClient()\n"
            f"{code}\nprint('ANSWER ' + json.dumps(answer))"
        )
        done = services.docker.run(
            "run", "--rm", *services.host_options, *variables, images["task"], "python", "-c", program
        )
        (line,) = [text for text in done.stdout.splitlines() if text.startswith("ANSWER ")]
        return json.loads(line.removeprefix("ANSWER "))

    return ask


def test_the_run_hands_back_its_summary_and_report(outputs):
    with open(outputs["summary"].path) as file:
        summary = json.load(file)
    assert summary["models"].keys() == {"glintru", "sasrec"}
    assert os.path.getsize(outputs["report"].path) > 10_000


def test_a_container_trains_by_two_processes(outputs, work):
    log = (work / "pipeline.log").read_text()
    assert log.count("training by 2 processes, on cpu") == 1
    assert log.count("train sasrec: stopped by") == log.count("train glintru: stopped by") == 1


def test_both_models_are_in_the_registry_and_can_be_fetched_without_keys(ask_mlflow):
    code = """
answer = {}
for name in ("glintru", "sasrec"):
    version = client.get_model_version_by_alias(name, "champion")
    path = mlflow.artifacts.download_artifacts(f"models:/{name}@champion", dst_path=f"/tmp/{name}")
    files = sorted(f for _, _, found in os.walk(path) for f in found)
    answer[name] = [version.tags.get("pipeline_run"), files]
"""
    for name, (run, files) in ask_mlflow(code).items():
        assert run == RUN_NAME, name
        assert {"MLmodel", "model.safetensors"} <= set(files), name


def test_every_run_in_mlflow_is_closed_and_its_artifacts_are_proxied(ask_mlflow):
    code = """
experiment = client.get_experiment_by_name("e2e")
runs = client.search_runs([experiment.experiment_id])
answer = [experiment.artifact_location, sorted({r.info.status for r in runs}), sorted(r.info.run_name for r in runs)]
"""
    location, statuses, names = ask_mlflow(code)
    assert location.startswith("mlflow-artifacts:")
    assert set(statuses) <= {"FINISHED", "KILLED"}
    assert {RUN_NAME, "glintru", "sasrec", "tune glintru", "tune sasrec"} <= set(names)


def test_artifacts_lie_in_s3(services, outputs):
    import boto3

    keys = services.manifests.data("Secret", "mlflow")
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{ADDRESSES['seaweedfs.glintru.svc']}:8333",
        region_name="us-east-1",
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
    )
    found = [entry["Key"] for entry in client.list_objects_v2(Bucket="mlflow", Prefix="artifacts/")["Contents"]]
    weights = [key for key in found if key.endswith("model.safetensors")]
    assert len(weights) >= 2
    assert any(key.endswith("settings.json") for key in found)


def test_both_studies_lie_in_postgres_and_have_spent_their_budget(services, config, outputs):
    import optuna

    address = ADDRESSES["postgres.glintru.svc"]
    url = services.credentials["GLINTRU_STUDY_STORAGE"].replace("postgres.glintru.svc", address)
    summaries = optuna.get_all_study_summaries(url)
    found = {s.study_name: s.n_trials for s in summaries if s.study_name.startswith(RUN_NAME)}
    assert found.keys() == {f"{RUN_NAME}-glintru", f"{RUN_NAME}-sasrec"}
    assert all(count >= config.tuning.num_trials for count in found.values())


def test_no_secret_is_in_the_compiled_file_in_the_log_or_in_mlflow(services, ask_mlflow, work):
    secrets = [value for name in ("postgres", "mlflow") for value in services.manifests.data("Secret", name).values()]
    secrets += [part for part in services.credentials.values() if "@" in part]
    code = """
runs = client.search_runs([client.get_experiment_by_name("e2e").experiment_id])
answer = json.dumps([[r.data.params, r.data.tags] for r in runs])
"""
    places = [(work / "pipeline.yaml").read_text(), (work / "pipeline.log").read_text(), ask_mlflow(code)]
    assert len(secrets) >= 6
    for secret in secrets:
        assert not any(secret in place for place in places)


@pytest.fixture(scope="session")
def failing(images, work):
    from kfp import compiler, dsl

    @dsl.component(base_image=images["task"], install_kfp_package=False)
    def fail():
        raise SystemExit(3)

    @dsl.pipeline(name="control")
    def control():
        fail()

    compiler.Compiler().compile(control, str(work / "control.yaml"))
    return work / "control.yaml"


@pytest.mark.parametrize("attempt", range(CONTROL_RUNS))
def test_control_a_component_that_fails_makes_the_run_fail(in_containers, failing, attempt):
    with pytest.raises(RuntimeError, match="fail"):
        in_containers(failing, {}, f"control-{attempt}")


def test_control_mlflow_down_when_the_run_starts_is_one_line(in_containers, images, config, work):
    package = compile_pipeline(config, PROFILES["kind"], work / "down.yaml", images["task"])
    nobody = {"MLFLOW_TRACKING_URI": "http://mlflow.glintru.svc:5999"}
    with pytest.raises(RuntimeError, match="start-run"):
        in_containers(package, {"run_name": "e2e-down"}, "down", nobody)
    log = (work / "down.log").read_text()
    errors = [line for line in log.splitlines() if "» error: " in line]
    assert errors
    assert all("MLflow at http://mlflow.glintru.svc:5999: not reachable" in line for line in errors)
