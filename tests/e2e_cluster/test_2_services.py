"""The services as the manifests configure them: who is let in, under which name, and what is kept."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from harness import tuning_worker
from harness.manifests import ROOT, container_of
from harness.services import ADDRESSES


def ask_mlflow(host, path="/api/2.0/mlflow/experiments/search?max_results=1"):
    url = f"http://{ADDRESSES['mlflow.glintru.svc']}:5000{path}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Host": host}), timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_mlflow_answers_under_its_in_cluster_names_and_refuses_any_other(services):
    hosts = services.manifests.data("ConfigMap", "mlflow-settings")["ALLOWED_HOSTS"].split(",")
    for host in (h for h in hosts if "*" not in h):
        assert ask_mlflow(host) == 200, host
    assert ask_mlflow("evil.example.com") == 403
    assert ask_mlflow("evil.example.com", "/health") == 200  # the kubelet's probes send the pod's address


def test_mlflow_lives_in_postgres(services):
    password = services.manifests.data("Secret", "postgres")["MLFLOW_DB_PASSWORD"]
    environment = {**os.environ, **services.postgres_environment(), "PGUSER": "mlflow", "PGPASSWORD": password}
    query = ["psql", "--dbname=mlflow", "-Atc", "select count(*) from experiments"]
    assert int(subprocess.run(query, env=environment, check=True, capture_output=True, text=True).stdout) >= 1


@pytest.mark.parametrize(("role", "database"), [("optuna", "mlflow"), ("mlflow", "optuna")])
def test_each_role_sees_its_own_database_alone(services, role, database):
    password = services.manifests.data("Secret", "postgres")[f"{role.upper()}_DB_PASSWORD"]
    environment = {**os.environ, **services.postgres_environment(), "PGUSER": role, "PGPASSWORD": password}
    ask = ["psql", "-Atc", "select 1"]
    own = subprocess.run([*ask, f"--dbname={role}"], env=environment, capture_output=True, text=True, check=False)
    assert own.stdout.strip() == "1", own.stderr
    other = subprocess.run([*ask, f"--dbname={database}"], env=environment, capture_output=True, text=True, check=False)
    assert other.returncode != 0
    assert "permission denied" in other.stderr


def test_the_store_refuses_a_wrong_key(services):
    import boto3
    from botocore.exceptions import ClientError

    keys = services.manifests.data("Secret", "mlflow")
    url = f"http://{ADDRESSES['seaweedfs.glintru.svc']}:8333"

    def list_with(secret):
        client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=secret,
        )
        return client.list_objects_v2(Bucket="mlflow")

    assert list_with(keys["AWS_SECRET_ACCESS_KEY"])["Name"] == "mlflow"
    with pytest.raises(ClientError):
        list_with("wrong")


def test_a_backup_can_be_restored(services, work):
    job = services.manifests.get("CronJob", "postgres-backup")
    container = container_of(job)
    backups, script = work / "backups", work / "backup.sh"
    backups.mkdir()
    script.write_text(services.manifests.data("ConfigMap", "postgres-scripts")["backup.sh"])
    environment = {**os.environ, **services.manifests.environment(container), "BACKUP_DIR": str(backups)}
    environment |= {"PGHOST": ADDRESSES[environment["PGHOST"]]}
    subprocess.run(["sh", str(script)], env=environment, check=True)
    dumps = sorted(backups.iterdir())
    assert [dump.name.partition("-")[0] for dump in dumps] == ["mlflow", "optuna"]
    subprocess.run(["createdb", "restored"], env=environment, check=True)
    subprocess.run(["pg_restore", "--no-owner", "--dbname=restored", str(dumps[0])], env=environment, check=True)

    def count(database):
        query = ["psql", f"--dbname={database}", "-Atc", "select count(*) from experiments"]
        return subprocess.run(query, env=environment, check=True, capture_output=True, text=True).stdout

    assert count("restored") == count("mlflow")


def test_a_trial_whose_worker_dies_is_run_again_by_another(services, work):
    """On the database of the cluster: the heartbeat stops, the next worker takes the settings over."""
    import optuna

    name = "postgres.glintru.svc"
    url = services.credentials["GLINTRU_STUDY_STORAGE"].replace(name, ADDRESSES[name])
    environment = {**os.environ, "GLINTRU_STUDY_STORAGE": url, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    program, stuck = [sys.executable, str(Path(tuning_worker.__file__)), "dying"], work / "stuck"
    first = subprocess.Popen([*program, "0", "2", str(stuck)], env=environment)
    deadline = time.monotonic() + 120
    while not stuck.exists():
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    first.kill()
    first.wait()
    time.sleep(4 * tuning_worker.HEARTBEAT_SECONDS)
    subprocess.run([*program, "1", "2"], env=environment, check=True, timeout=120)
    trials = optuna.load_study(study_name="dying", storage=url).trials
    lost = [trial for trial in trials if trial.state.name == "FAIL"]
    done = [trial for trial in trials if trial.state.name == "COMPLETE"]
    assert len(lost) == 1
    assert len(done) == 2
    assert any(trial.params == lost[0].params for trial in done)
