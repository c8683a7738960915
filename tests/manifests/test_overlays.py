"""Both overlays render offline, fit the schemas of the supported Kubernetes versions, and keep what they promise."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.kubectl import why_not

ROOT = Path(__file__).parents[2]
KUSTOMIZE = ROOT / "infra" / "kustomize"
OVERLAYS = ("kind", "gpu")
SUPPORTED = ("1.31", "1.32", "1.33", "1.34")

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


def render(folder):
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


@pytest.fixture(scope="module", params=OVERLAYS)
def objects(request):
    return render(KUSTOMIZE / "overlays" / request.param)


def workloads(objects):
    """Give (kind/name, pod template) of everything that makes pods."""
    for o in objects:
        spec = o.get("spec", {})
        spec = spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec
        if "template" in spec:
            yield f"{o['kind']}/{o['metadata']['name']}", spec["template"]


def find(objects, kind, name):
    (found,) = [o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name)]
    return found


@pytest.mark.parametrize("version", SUPPORTED)
def test_every_object_fits_its_schema(objects, version):
    import kubernetes_validate

    problems = {}
    for o in objects:
        try:
            kubernetes_validate.validate(o, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            problems[o["kind"], o["metadata"]["name"]] = error.message
    assert problems == {}


def test_the_schema_check_finds_a_misspelt_field(objects):
    import kubernetes_validate

    broken = find(objects, "Deployment", "mlflow")
    broken = {**broken, "spec": {**broken["spec"], "replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, SUPPORTED[-1], strict=True)


def test_nothing_comes_from_a_remote_base():
    for path in KUSTOMIZE.rglob("kustomization.yaml"):
        kustomization = yaml.safe_load(path.read_text())
        for entry in (*kustomization.get("resources", []), *kustomization.get("components", [])):
            assert (path.parent / entry).exists(), f"{path}: {entry}"


def test_every_pod_is_locked_down_and_bounded(objects):
    for name, template in workloads(objects):
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["serviceAccountName"] != "default", name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in pod["containers"]:
            context, resources = container["securityContext"], container["resources"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert {"cpu", "memory"} <= resources["requests"].keys() & resources["limits"].keys(), name


def test_everything_that_serves_has_probes(objects):
    serving = [(n, t) for n, t in workloads(objects) if n.partition("/")[0] in ("Deployment", "StatefulSet")]
    assert len(serving) >= 2
    for name, template in serving:
        for container in template["spec"]["containers"]:
            assert {"readinessProbe", "livenessProbe"} <= container.keys(), name


def test_images_are_pinned(objects):
    for name, template in workloads(objects):
        for container in template["spec"]["containers"]:
            if container["image"] != "glintru-mlflow":  # its tag is the commit: infra/common.sh gives it
                assert re.search(r":[v\d][\w.-]*\d", container["image"]), f"{name}: {container['image']}"


def selects(selector, labels):
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(labels.get(e["key"]) in e["values"] for e in selector.get("matchExpressions", []))


def test_services_policies_and_selectors_find_their_pods(objects):
    pods = {name: template["metadata"]["labels"] for name, template in workloads(objects)}
    for o in objects:
        name, namespace = o["metadata"]["name"], o["metadata"].get("namespace")
        if o["kind"] == "Service" and namespace == "glintru":
            assert any(selects({"matchLabels": o["spec"]["selector"]}, labels) for labels in pods.values()), name
        if o["kind"] == "NetworkPolicy" and o["spec"]["podSelector"]:
            assert any(selects(o["spec"]["podSelector"], labels) for labels in pods.values()), name
            for rule in o["spec"].get("ingress", []) + o["spec"].get("egress", []):
                for peer in rule.get("from", []) + rule.get("to", []):
                    if peer.keys() == {"podSelector"}:
                        assert any(selects(peer["podSelector"], labels) for labels in pods.values()), name


def test_every_pod_that_talks_is_let_through_a_namespace_that_denies(objects):
    deny = find(objects, "NetworkPolicy", "default-deny")
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    policies = [o for o in objects if o["kind"] == "NetworkPolicy" and o["spec"]["podSelector"]]
    for name, template in workloads(objects):
        assert any(selects(p["spec"]["podSelector"], template["metadata"]["labels"]) for p in policies), name


def test_task_pods_reach_mlflow_and_the_study_database_by_the_label_that_the_pipeline_gives_them(objects):
    from pipelines.resources import POD_LABELS

    for name in ("mlflow", "postgres"):
        peers = [peer for rule in find(objects, "NetworkPolicy", name)["spec"]["ingress"] for peer in rule["from"]]
        tasks = [peer for peer in peers if "namespaceSelector" in peer]
        for namespace in ({"kubernetes.io/metadata.name": "kubeflow"}, {"glintru.dev/tasks": "true"}):  # a profile's
            assert any(selects(peer["namespaceSelector"], namespace) for peer in tasks), name
        assert all(selects(peer["podSelector"], POD_LABELS) for peer in tasks)


def test_a_job_that_submits_may_also_replace_a_schedule(objects):
    rules = find(objects, "Role", "glintru-submitter")["rules"]
    on_schedules = {verb for rule in rules if "jobs" in rule["resources"] for verb in rule["verbs"]}
    assert on_schedules >= {"create", "list", "delete"}
    assert not any("secrets" in rule["resources"] for rule in rules)


def test_mlflow_knows_its_in_cluster_name_and_keeps_artifacts_behind_it(objects):
    (container,) = find(objects, "Deployment", "mlflow")["spec"]["template"]["spec"]["containers"]
    assert "--serve-artifacts" in container["args"]
    assert "--allowed-hosts=$(ALLOWED_HOSTS)" in container["args"]
    settings = find(objects, "ConfigMap", "mlflow-settings")["data"]
    assert "mlflow.glintru.svc:5000" in settings["ALLOWED_HOSTS"].split(",")
    assert settings["ARTIFACTS_DESTINATION"].startswith("s3://")
    assert {"secretRef": {"name": "mlflow"}} in container["envFrom"]


def test_ingresses_lead_to_the_authenticating_proxy_alone_under_the_name_that_mlflow_knows():
    objects = render(KUSTOMIZE / "overlays" / "gpu")
    ingresses = [o for o in objects if o["kind"] == "Ingress"]
    assert len(ingresses) == 1
    settings = find(objects, "ConfigMap", "mlflow-settings")["data"]
    for ingress in ingresses:
        hosts = {host for entry in ingress["spec"]["tls"] for host in entry["hosts"]}
        for rule in ingress["spec"]["rules"]:
            assert rule["host"] in hosts
            assert rule["host"] in settings["ALLOWED_HOSTS"].split(",")
            backends = {path["backend"]["service"]["name"] for path in rule["http"]["paths"]}
            assert backends == {"auth-proxy"}
    (proxy,) = find(objects, "Deployment", "auth-proxy")["spec"]["template"]["spec"]["containers"]
    assert "--upstream=http://mlflow.glintru.svc:5000" in proxy["args"]
    assert not [o for o in objects if o["kind"] == "Service" and o["spec"].get("type") in ("NodePort", "LoadBalancer")]


def test_the_gpu_overlay_holds_no_secret_and_names_those_it_needs():
    objects = render(KUSTOMIZE / "overlays" / "gpu")
    assert not [o for o in objects if o["kind"] == "Secret"]
    text = "\n".join(yaml.safe_dump(o) for o in objects)
    assert "throwaway" not in text
    references = set()
    for _, template in workloads(objects):
        for container in template["spec"]["containers"]:
            references |= {s["secretRef"]["name"] for s in container.get("envFrom", []) if "secretRef" in s}
    deploy = (ROOT / "infra" / "deploy.sh").read_text()
    assert references == {"mlflow", "postgres", "auth-proxy"}
    assert all(f"glintru/{name}" in deploy for name in references)


def test_the_kind_overlay_gives_tasks_what_the_pipeline_asks_for():
    from pipelines.resources import SECRET_KEYS, SECRET_NAME

    objects = render(KUSTOMIZE / "overlays" / "kind")
    secret = find(objects, "Secret", SECRET_NAME)
    assert secret["metadata"]["namespace"] == "kubeflow"
    assert secret["data"].keys() <= set(SECRET_KEYS)


def test_a_managed_postgres_leaves_nothing_of_ours_behind(tmp_path):
    copy = tmp_path / "kustomize"
    shutil.copytree(KUSTOMIZE, copy)
    overlay = copy / "overlays" / "gpu" / "kustomization.yaml"
    overlay.write_text(
        overlay.read_text()
        .replace("# components:\n# - ", "components:\n- ")
    )  # fmt: skip
    objects = render(overlay.parent)
    left = {f"{o['kind']}/{o['metadata']['name']}" for o in objects if o["metadata"]["name"].startswith("postgres")}
    assert left == set()
    egress = find(objects, "NetworkPolicy", "mlflow")["spec"]["egress"]
    outside = [rule["ports"] for rule in egress if "ipBlock" in rule["to"][0]]
    assert [{"protocol": "TCP", "port": 5432}] in outside


def test_backups_run_daily_and_are_kept_on_a_volume_of_their_own(objects):
    job = find(objects, "CronJob", "postgres-backup")
    assert job["apiVersion"] == "batch/v1"
    assert len(job["spec"]["schedule"].split()) == 5
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert {"name": "backups", "persistentVolumeClaim": {"claimName": "postgres-backups"}} in pod["volumes"]


@pytest.mark.parametrize("script", sorted(p.relative_to(ROOT) for p in (ROOT / "infra").rglob("*.sh")))
def test_scripts_parse(script):
    shell = "bash" if "bash" in (ROOT / script).read_text().splitlines()[0] or script.name == "common.sh" else "sh"
    done = subprocess.run([shell, "-n", ROOT / script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_servers_image_gets_its_commits_tag(tmp_path):
    script = "source infra/common.sh; render kind registry.example/glintru-mlflow:0.1.0-abc"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    images = re.findall(r"image: (\S*glintru-mlflow\S*)", done.stdout)
    assert images == ["registry.example/glintru-mlflow:0.1.0-abc"] * 2


@pytest.mark.parametrize(
    ("command", "part"),
    [
        (["infra/deploy.sh"], "no Kubernetes context"),
        (["env", "OVERLAY=nope", "infra/deploy.sh"], "OVERLAY is 'nope', allowed: gpu kind"),
        (["env", "ACCELERATOR=tpu", "infra/image/build.sh"], "ACCELERATOR is 'tpu', allowed: cpu, cuda"),
    ],
)
def test_scripts_refuse_in_one_line(command, part, tmp_path):
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "KUBECONFIG": str(tmp_path / "none")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert part in line
