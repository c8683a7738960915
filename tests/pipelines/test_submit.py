"""Submission against a small backend on loopback: what is sent, what a person sees, how it ends."""

import json
import socket

import pytest
import yaml

from pipelines.run import main


@pytest.fixture
def submit(backend, capsys):
    """Run the command; return its exit code, what it printed, and the one line of its failure."""

    def run(*options, host=None):
        code = main(["--runner", "kfp", "--profile", "kind", "--host", host or backend.host, *map(str, options)])
        captured = capsys.readouterr()
        lines = captured.err.splitlines()
        assert len(lines) == (0 if code == 0 else 1), captured.err
        assert "Traceback" not in captured.out
        return code, captured.out, lines[0] if lines else ""

    return run


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


def test_a_backend_that_is_not_there(submit):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{unused.getsockname()[1]}"
        code, _, line = submit(host=host)
    assert code == 1
    assert line.startswith(f"error: {host}: Kubeflow Pipelines is not reachable")
    assert "check KFP_HOST" in line


@pytest.mark.parametrize("at_once", [True, False])
def test_an_expired_token_is_told_and_never_shown(backend, submit, monkeypatch, at_once):
    monkeypatch.setenv("KFP_TOKEN", "marked-token")
    backend.refusal, backend.refuse_health = (401, {"message": "token marked-token has expired"}), at_once
    code, out, line = submit()
    assert code == 2
    assert "credentials are not accepted (401)" in line
    assert "KFP_TOKEN" in line
    assert "marked-token" not in out + line


def test_a_token_that_expires_while_waiting_leaves_the_run_alone(backend, submit, monkeypatch):
    answer = backend.answer

    def expire(method, path, query, body):
        return (401, {"message": "expired"}) if path.endswith("/runs/run-1") else answer(method, path, query, body)

    monkeypatch.setattr(backend, "answer", expire)
    code, _, line = submit()
    assert code == 2
    assert "the run goes on" in line
    assert not backend.bodies("POST", "/apis/v2beta1/runs/run-1:terminate")


def test_a_login_page_instead_of_the_api(backend, submit):
    backend.refusal, backend.refuse_health = (200, "<html>Sign in</html>"), True
    code, _, line = submit()
    assert code == 1
    assert "this is not the API of Kubeflow Pipelines" in line


@pytest.mark.parametrize(
    ("refusal", "part"),
    [
        ((404, {"message": 'namespaces "team" not found'}), "namespace 'team' is missing"),
        ((403, {"message": "User is not authorized"}), "not allowed (403) in namespace 'team'"),
    ],
)
def test_a_namespace_that_is_missing_or_not_ones_own(backend, submit, refusal, part):
    backend.multi_user, backend.refusal = True, refusal
    code, _, line = submit("--namespace", "team")
    assert code == 2
    assert part in line
    assert "KFP_NAMESPACE" in line


def test_a_multi_user_backend_asks_for_the_namespace_and_gets_it(backend, submit):
    backend.multi_user = True
    code, _, line = submit()
    assert code == 2
    assert "set KFP_NAMESPACE" in line
    code, _, _ = submit("--namespace", "team")
    assert code == 0


def test_an_image_that_cannot_be_pulled_ends_the_run_at_once(backend, submit, pod):
    backend.states = ["RUNNING"]
    backend.pods = [pod("resolve-source", waiting={"reason": "ImagePullBackOff", "message": "back-off"})]
    code, _, line = submit()
    assert code == 1
    assert "resolve-source: image 'glintru:none' cannot be pulled (ImagePullBackOff)" in line
    assert "make image" in line
    assert len(backend.bodies("POST", "/apis/v2beta1/runs/run-1:terminate")) == 1


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


@pytest.mark.parametrize("schedule", [(), ("--schedule", "0 3 * * *")])
@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("log.csv", "'log.csv': a cluster cannot read it; give s3://... or https://..."),
        ("lgo.csv", "'lgo.csv': no such file and no such dataset"),
        ("ml-1n", "did you mean 'ml-1m'?"),
        ("s3:/bucket/log.csv", "no such file"),
        ("gs://bucket/log.csv", "give s3://... or https://..."),
    ],
)
def test_a_log_that_a_cluster_cannot_read_is_not_submitted(backend, submit, tmp_path, schedule, source, part):
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n")
    code, _, line = submit("--data", source, *schedule)
    assert code == 2
    assert part in line
    assert not backend.requests


@pytest.mark.parametrize(
    "setting",
    [
        "ingest.append_to",
        "sequences.keep_indices_of",
        "models.glintru.training.warm_start_from",
        "models.sasrec.training.warm_start_from",
    ],
)
def test_a_folder_of_this_machine_is_not_submitted(backend, submit, tmp_path, setting):
    settings = str(tmp_path)
    for part in reversed(setting.split(".")):
        settings = {part: settings}
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(settings))
    code, _, line = submit("--config", config)
    assert code == 2
    assert f"{setting} '{tmp_path}': a folder of this machine, which a cluster cannot read" in line
    assert not backend.requests


def test_an_address_with_credentials_is_not_submitted(backend, submit):
    code, out, line = submit("--data", "https://u:marked@example.com/log.csv")
    assert code == 2
    assert "holds credentials" in line
    assert "marked" not in out + line
    assert not backend.requests


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
