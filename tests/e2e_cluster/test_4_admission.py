"""A real Kubernetes API server admits every object of both overlays whose API it knows.

`KUBE_APISERVER` names a program with the commands `start` (prints a kubeconfig's path) and `stop`; the one of the
proof is 1.20, so what is newer than that is listed, not downgraded. `E2E_KUBECONFIG` names a server that runs already.
"""

import json
import os
import subprocess

import pytest
from harness.manifests import OVERLAYS, Manifests

from tests.kubectl import why_not

NEWER_THAN_1_20 = {"batch/v1 CronJob", "policy/v1 PodDisruptionBudget"}


@pytest.fixture(scope="session")
def kubectl():
    if reason := why_not():
        pytest.skip(reason)
    tool, kubeconfig = os.environ.get("KUBE_APISERVER", ""), os.environ.get("E2E_KUBECONFIG", "")
    if not kubeconfig:
        if not tool:
            pytest.skip("SKIPPED, no Kubernetes API server: set KUBE_APISERVER or E2E_KUBECONFIG")
        started = subprocess.run([tool, "start"], capture_output=True, text=True, check=False)
        if started.returncode:
            pytest.skip(f"SKIPPED, the Kubernetes API server does not start: {started.stderr.strip()[-200:]}")
        kubeconfig = started.stdout.strip()

    def run(*arguments, text=""):
        return subprocess.run(
            ["kubectl", "--kubeconfig", kubeconfig, *arguments], input=text, capture_output=True, text=True, check=False
        )

    for namespace in ("glintru", "kubeflow"):
        run("create", "namespace", namespace)
    yield run
    if tool and not os.environ.get("E2E_KUBECONFIG"):
        subprocess.run([tool, "stop"], check=False)


@pytest.fixture(scope="session")
def known(kubectl):
    """The `group/version Kind`s that the server serves."""
    found = set()
    paths = ["/api/v1", *(f"/apis/{v}" for v in kubectl("api-versions").stdout.split() if "/" in v)]
    for path in paths:
        answer = kubectl("get", "--raw", path)
        if answer.returncode == 0:
            listed = json.loads(answer.stdout)
            found |= {f"{listed['groupVersion']} {r['kind']}" for r in listed["resources"] if "/" not in r["name"]}
    return found


def admit(kubectl, o):
    return kubectl("apply", "--dry-run=server", "--validate=false", "-f", "-", text=json.dumps(o))


@pytest.mark.parametrize("overlay", ["kind", "gpu"])
def test_every_object_whose_api_is_known_is_admitted(kubectl, known, overlay):
    unknown, admitted = set(), 0
    for o in Manifests.render(OVERLAYS / overlay).objects:
        api = f"{o['apiVersion']} {o['kind']}"
        if api not in known:
            unknown.add(api)
            continue
        done = admit(kubectl, o)
        assert done.returncode == 0, f"{api} {o['metadata']['name']}: {done.stderr}"
        admitted += 1
    print(f"\n{overlay}: {admitted} objects admitted; unknown to this server: {sorted(unknown) or 'none'}")
    assert admitted >= 15
    assert unknown <= NEWER_THAN_1_20


def mlflow(change):
    (found,) = [
        o
        for o in Manifests.render(OVERLAYS / "kind").objects
        if (o["kind"], o["metadata"]["name"]) == ("Deployment", "mlflow")
    ]
    change(found["spec"])
    return found


def other_labels(spec):
    spec["template"]["metadata"]["labels"] = {"app": "other"}


def no_image(spec):
    spec["template"]["spec"]["containers"][0]["image"] = ""


def port_too_high(spec):
    spec["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] = 99999


@pytest.mark.parametrize("change", [other_labels, no_image, port_too_high])
def test_control_the_server_refuses_what_a_schema_lets_pass(kubectl, change):
    done = admit(kubectl, mlflow(change))
    assert done.returncode != 0
    assert "invalid" in done.stderr.lower()
