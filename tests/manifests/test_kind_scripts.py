"""`make kind-up` and `make kind-down`, with a docker, a kind and a cluster that write down what they are told."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.kubectl import why_not

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

STAND_INS = {
    "docker": """
[ "$1 $2" != "image inspect" ] || echo 1000000
""",
    "kind": """
[ "$1 $2" != "get clusters" ] || cat "$CLUSTERS"
[ "$1 $2" != "create cluster" ] || echo glintru >"$CLUSTERS"
""",
    "kubectl": """
case " $*" in
  *" kustomize "*) exec "$KUBECTL" "$@" ;;
  *" apply -f -"*) cat >>"$APPLIED" ;;
esac
""",
}


@pytest.fixture
def scripts(tmp_path):
    """Run make in a copy of what the scripts read; return (exit code, standard error, what was told)."""
    project, tools = tmp_path / "project", tmp_path / "tools"
    (project / "glintru_model").mkdir(parents=True)
    tools.mkdir()
    shutil.copytree(ROOT / "infra", project / "infra")
    for name in ("Makefile", "glintru_model/__init__.py"):
        shutil.copyfile(ROOT / name, project / name)
    for name, does in STAND_INS.items():
        (tools / name).write_text(f'#!/bin/sh\necho "{name} $*" >>"$TOLD"\n{does}\n')
        (tools / name).chmod(0o755)
    told, clusters = tmp_path / "told", tmp_path / "clusters"
    clusters.touch()
    environment = {
        "PATH": f"{tools}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "KUBECTL": shutil.which("kubectl"),
        "TOLD": str(told),
        "CLUSTERS": str(clusters),
        "APPLIED": str(tmp_path / "applied.yaml"),
        **{name: value for name, value in os.environ.items() if name.startswith("GIT_")},
    }

    def run(*arguments):
        told.write_text("")
        command = ["make", "--no-print-directory", *arguments]
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
        return done, told.read_text().splitlines()

    run.folder = tmp_path
    return run


def place(told, *words):
    """Return where the one command with these words stands."""
    (found,) = [i for i, line in enumerate(told) if all(word in line for word in words)]
    return found


def test_from_nothing_to_a_cluster_that_the_next_command_finds(scripts):
    done, told = scripts("kind-up")
    assert done.returncode == 0, done.stderr
    order = [
        place(told, "docker build", "--target task"),
        place(told, "docker build", "--target server"),
        place(told, "kind create cluster", "kindest/node:v1.34.0@sha256:"),
        place(told, "kind load docker-image", "glintru-pipeline-python:", "glintru-mlflow:"),
        place(told, "apply -k", "cluster-scoped-resources?ref=2.17.0"),
        place(told, "apply -k", "env/platform-agnostic?ref=2.17.0"),
        place(told, "apply -f -"),
        place(told, "rollout status statefulset/postgres"),
        place(told, "rollout status deployment/mlflow"),
        place(told, "wait deployment --all", "--namespace kubeflow"),
    ]
    assert order == sorted(order)
    assert all("--context kind-glintru" in line for line in told if line.startswith("kubectl --") or " apply " in line)
    objects = list(yaml.safe_load_all((scripts.folder / "applied.yaml").read_text()))
    (mlflow,) = [o for o in objects if o and (o["kind"], o["metadata"]["name"]) == ("Deployment", "mlflow")]
    server = mlflow["spec"]["template"]["spec"]["containers"][0]["image"]
    loaded = told[place(told, "kind load docker-image")].split()
    assert server in loaded

    planned, _ = scripts("-n", "-o", ".venv/pipeline.stamp", "pipeline-run", "RUNNER=kfp")
    (command,) = [line for line in planned.stdout.splitlines() if "pipelines.run" in line]
    task = next(word for word in loaded if word.startswith("glintru-pipeline-python:"))
    for option in ('--host "http://localhost:8080"', '--profile "kind"', f'--image "{task}"', "--mlflow-url"):
        assert option in command

    again, told = scripts("kind-up")
    assert again.returncode == 0, again.stderr
    assert not any("create cluster" in line for line in told)

    down, told = scripts("kind-down")
    assert down.returncode == 0, down.stderr
    place(told, "kind delete cluster", "glintru")
    assert not (scripts.folder / "project/build/kind.mk").exists()


def test_a_step_that_fails_ends_it(scripts):
    tool = scripts.folder / "tools/kind"
    tool.write_text(tool.read_text() + '[ "$1 $2" != "load docker-image" ] || exit 1\n')
    done, told = scripts("kind-up")
    assert done.returncode == 2
    assert not any(" apply " in line for line in told)
    assert not (scripts.folder / "project/build/kind.mk").exists()


def own_names(scripts):
    overlay = scripts.folder / "project/infra/kustomize/overlays/gpu/kustomization.yaml"
    text = overlay.read_text().replace("mlflow.example.com", "mlflow.shop.test")
    overlay.write_text(text.replace("s3://example-mlflow", "s3://shop-mlflow"))


def test_an_overlay_with_example_names_is_not_applied(scripts):
    done, told = scripts("deploy", "CONTEXT=team-cluster")
    assert done.returncode == 2
    assert "overlay gpu still has example names: write yours into" in done.stderr
    assert not any(" apply " in line for line in told)


@pytest.mark.parametrize(("arguments", "namespace"), [((), "kubeflow"), (("KFP_NAMESPACE=team",), "team")])
def test_the_namespace_that_tasks_run_in_is_let_in_and_has_their_secret(scripts, arguments, namespace):
    own_names(scripts)
    done, told = scripts("deploy", "CONTEXT=team-cluster", *arguments)
    assert done.returncode == 0, done.stderr
    place(told, f"--namespace {namespace} get secret glintru-credentials")
    labelled = [line for line in told if f"label namespace {namespace} glintru.dev/tasks=true" in line]
    assert len(labelled) == (namespace != "kubeflow")
