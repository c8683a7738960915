"""Submission against a small backend on loopback: what is sent, what a person sees, how it ends."""

import json

import pytest
import yaml


def task(name, state):
    return {"display_name": name, "state": state, "task_id": name}


def test_a_run_that_succeeds_shows_progress_and_links_and_exits_with_0(backend, submit):
    backend.states = ["PENDING", "RUNNING", "SUCCEEDED"]
    backend.tasks = [task("train-recommender", "SUCCEEDED"), task("train-recommender-driver", "SUCCEEDED")]
    code, out, _ = submit("--mlflow-url", "http://mlflow.example")
    assert code == 0
    assert f"{backend.host}/#/runs/details/run-1" in out
    assert "http://mlflow.example/#/experiments (experiment 'quickstart'" in out
    assert "train glintru: succeeded" in out
    assert "driver" not in out
    for state in ("pending", "running", "succeeded"):
        assert f": {state} after" in out
    (sent,) = backend.bodies("POST", "/apis/v2beta1/runs")
    assert sent["experiment_id"] == "experiment-1"
    assert sent["runtime_config"]["parameters"]["run_name"] == sent["display_name"]
    assert sent["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "sequential-recommenders"


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_run_that_does_not_succeed_exits_with_1_and_names_the_task(backend, submit, state):
    backend.states, backend.tasks = ["RUNNING", state], [task("ingest-interactions", "FAILED")]
    code, _, line = submit()
    assert code == 1
    assert f"ended as {state.lower()} in ingest interactions; see {backend.host}/#/runs/details/run-1" in line


def test_mlflow_down_when_the_run_starts_is_told_in_the_tasks_own_words(backend, submit, pod):
    backend.states, backend.tasks = ["FAILED"], [task("start-run", "FAILED")]
    backend.pods = [pod("start-run", phase="Failed")]
    backend.log = "noise\n» error: MLflow at http://mlflow.glintru.svc:5000: not reachable: Connection refused\n"
    code, _, line = submit()
    assert code == 1
    assert "in start run: MLflow at http://mlflow.glintru.svc:5000: not reachable: Connection refused; see" in line


def test_an_image_that_cannot_be_pulled_ends_the_run_soon(backend, submit, pod):
    backend.states = ["RUNNING"]
    backend.pods = [pod("resolve-source", waiting={"reason": "ImagePullBackOff", "message": "back-off"})]
    code, _, line = submit()
    assert code == 1
    assert "resolve-source: image 'glintru:none' cannot be pulled (ImagePullBackOff)" in line
    assert "make image" in line
    assert len(backend.bodies("POST", "/apis/v2beta1/runs/run-1:terminate")) == 1


def test_a_pull_that_works_at_the_second_try_ends_nothing(backend, submit, pod, monkeypatch):
    monkeypatch.setattr("pipelines.submit.HOPELESS_SECONDS", 60)
    backend.states = ["RUNNING", "RUNNING", "RUNNING", "SUCCEEDED"]
    backend.pods = [pod("tune-sasrec", waiting={"reason": "ErrImagePull", "message": "connection reset by peer"})]
    code, out, _ = submit()
    assert code == 0
    assert out.count("tune-sasrec: image 'glintru:none' cannot be pulled (ErrImagePull)") == 1
    assert not backend.bodies("POST", "/apis/v2beta1/runs/run-1:terminate")


@pytest.mark.parametrize(("multi_user", "where"), [(False, "kubeflow"), (True, "team")])
def test_pods_are_found_where_the_backend_runs_them(backend, submit, pod, multi_user, where):
    """A single-user backend runs tasks beside itself, also for who has said a namespace."""
    backend.multi_user, backend.pods_in, backend.states = multi_user, where, ["FAILED"]
    backend.pods, backend.log = [pod("start-run", phase="Failed")], "» error: the tasks own words\n"
    code, _, line = submit("--namespace", "team")
    assert code == 1
    assert "the tasks own words" in line


@pytest.mark.parametrize("readable", [True, False])
def test_pods_that_cannot_be_read_are_told_once(backend, submit, readable):
    backend.states, backend.pods_refused = ["RUNNING", "RUNNING", "SUCCEEDED"], not readable
    code, out, _ = submit()
    assert code == 0
    assert out.count("pods cannot be read from here (Forbidden)") == (0 if readable else 1)


@pytest.fixture
def waiting_for_gpu(pod):
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.",
    }
    return pod(
        "tune-sasrec", conditions=[condition], limits={"nvidia.com/gpu": "1"}, selector={"glintru.dev/pool": "gpu"}
    )


def test_no_node_with_a_gpu_is_told_once_and_waited_for(backend, submit, waiting_for_gpu):
    backend.states, backend.pods = ["RUNNING", "RUNNING", "RUNNING", "SUCCEEDED"], [waiting_for_gpu]
    code, out, _ = submit()
    assert code == 0
    assert out.count("tune-sasrec: no node matches (1 nvidia.com/gpu, labels glintru.dev/pool=gpu)") == 1
    assert "kubectl get nodes -l glintru.dev/pool=gpu" in out


def test_no_node_with_a_gpu_for_too_long_ends_the_run(backend, submit, waiting_for_gpu):
    backend.states, backend.pods = ["RUNNING"], [waiting_for_gpu]
    code, _, line = submit("--pending-minutes", 0.001)
    assert code == 1
    assert "no node matches (1 nvidia.com/gpu" in line
    assert "the run was ended" in line
    assert len(backend.bodies("POST", "/apis/v2beta1/runs/run-1:terminate")) == 1


def sent_headers(backend):
    return [headers for _, path, headers, _ in backend.requests if path.startswith("/apis/")]


def test_each_way_to_sign_in_reaches_every_request(backend, submit, tmp_path, monkeypatch):
    secret = tmp_path / "credential"
    secret.write_text("marked-credential\n")
    ways = [
        ("--token-file", "authorization"),
        ("--cookie-file", "cookie"),
        ("--service-account-token", "authorization"),
    ]
    for option, header in ways:
        backend.requests.clear()
        code, out, _ = submit(option, secret)
        assert code == 0
        assert sent_headers(backend)
        assert all("marked-credential" in headers[header] for headers in sent_headers(backend))
        assert "marked-credential" not in out
    monkeypatch.setenv("KFP_COOKIE", "session=1")
    code, _, line = submit("--token-file", secret)
    assert code == 2
    assert "one way to sign in" in line


def test_a_schedule_replaces_the_one_before_and_names_each_run_anew(backend, submit):
    backend.schedules = [
        {"recurring_run_id": "schedule-1", "display_name": "quickstart"},
        {"recurring_run_id": "other", "display_name": "somebody's"},
    ]
    code, out, _ = submit("--schedule", "0 3 * * 1")
    assert code == 0
    assert "#/recurringrun/details/schedule-2" in out
    (sent,) = backend.bodies("POST", "/apis/v2beta1/recurringruns")
    assert sent["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * 1"
    assert sent["mode"] == "ENABLE"
    deleted = [path for verb, path, _, _ in backend.requests if verb == "DELETE"]
    assert deleted == ["/apis/v2beta1/recurringruns/schedule-1"]
    start = sent["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"]["start-run"]
    assert start["inputs"]["parameters"]["run_name"]["runtimeValue"] == {"constant": "{{$.pipeline_job_resource_name}}"}


def test_a_clock_that_cannot_be_read(backend, submit):
    code, _, line = submit("--schedule", "every day")
    assert code == 2
    assert "CRON 'every day', allowed: five fields" in line
    assert not backend.requests


def test_the_same_parameters_are_submitted_as_the_yaml_says(backend, submit, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({"name": "shop", "tuning": {"num_workers": 3}}))
    assert submit("--config", config)[0] == 0
    (sent,) = backend.bodies("POST", "/apis/v2beta1/runs")
    parameters = sent["pipeline_spec"]["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
    assert parameters["tuning_workers"]["defaultValue"] == [0, 1, 2]
    assert json.loads(parameters["tuning"]["defaultValue"])["num_workers"] == 3
