"""Why a task's pod does not start or has ended: read from the cluster itself, where this machine may.

Kubeflow Pipelines says of such a task only that it is pending or has failed.
"""

from dataclasses import dataclass
from typing import Any

from glintru_model.progress import MARK

RUN_LABEL = "pipeline/runid"
_NO_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
_LOG_LINES = 50


@dataclass(frozen=True)
class Trouble:
    """What keeps a pod from starting. Where `hopeless`, waiting helps only against a failure that passes at once."""

    message: str
    hopeless: bool


class Pods:
    """The pods of the first of some namespaces that has any; without access to the cluster there are none.

    Attributes:
        unreadable: why they could not be listed the last time; empty where they could.
    """

    def __init__(self, namespaces: list[str]) -> None:
        self._namespaces, self._api = namespaces, _core_api()
        self.unreadable = ""

    def of_run(self, run_id: str) -> list[Any]:
        """List a run's pods; empty where they cannot be listed."""
        reasons = []
        for namespace in self._namespaces:
            try:
                if found := self._list(namespace, run_id):
                    return found
            except Exception as error:  # whatever the client raises: this only adds to what the backend says
                reasons.append(" ".join(str(getattr(error, "reason", None) or error).split())[:200])
        self.unreadable = reasons[0] if len(reasons) == len(self._namespaces) else ""
        return []

    def _list(self, namespace: str, run_id: str) -> list[Any]:
        if self._api is None:
            raise LookupError("no kubeconfig")
        label = f"{RUN_LABEL}={run_id}"
        return list(self._api.list_namespaced_pod(namespace, label_selector=label, _request_timeout=10).items)

    def error_line(self, pod: Any) -> str:
        """Return the line with which a stage ended a failed pod; empty if there is none or it cannot be read."""
        try:
            log = self._api.read_namespaced_pod_log(
                pod.metadata.name,
                pod.metadata.namespace or self._namespaces[0],
                container="main",
                tail_lines=_LOG_LINES,
                _request_timeout=10,
            )
        except Exception:
            return ""
        lines = [line.strip().removeprefix(MARK).strip() for line in str(log).splitlines()]
        errors = [line for line in lines if line.startswith("error: ")]
        return errors[-1].removeprefix("error: ") if errors else ""


def trouble_of(pod: Any) -> Trouble | None:
    """Say what keeps a pod from starting; None where nothing does.

    Args:
        pod: a `V1Pod`.
    """
    step = (pod.metadata.labels or {}).get("glintru.dev/step", pod.metadata.name)
    statuses = [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]
    for status in statuses:
        waiting = status.state.waiting if status.state else None
        if waiting and waiting.reason in _NO_IMAGE:
            return Trouble(
                f"{step}: image {status.image!r} cannot be pulled ({waiting.reason}): build and push it "
                "(`make image REGISTRY=... PUSH=1`, on kind `make kind-up`), or name another with IMAGE=",
                hopeless=True,
            )
        if waiting and waiting.reason == "CreateContainerConfigError":
            return Trouble(f"{step}: the pod's configuration is incomplete: {waiting.message}", hopeless=True)
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False" and condition.reason == "Unschedulable":
            return Trouble(f"{step}: {_why_unschedulable(pod, condition.message or '')}", hopeless=False)
    return None


def _why_unschedulable(pod: Any, message: str) -> str:
    limits = [c.resources.limits or {} for c in pod.spec.containers if c.resources]
    gpus = {name: count for limit in limits for name, count in limit.items() if name.endswith("/gpu")}
    if not gpus:
        return f"no node has room: {message}"
    asked = ", ".join(f"{count} {name}" for name, count in gpus.items())
    labels = ",".join(f"{key}={value}" for key, value in (pod.spec.node_selector or {}).items())
    return (
        f"no node matches ({asked}, labels {labels}): {message}; see `kubectl get nodes -l {labels}`, "
        "grow the pool, or wait for its autoscaler"
    )


def _core_api() -> Any:
    """Make a Kubernetes client from the pod's own account or a kubeconfig; None where there is neither."""
    from kubernetes import client, config

    try:
        config.load_incluster_config()
    except config.ConfigException:
        try:
            config.load_kube_config()
        except Exception:
            return None
    return client.CoreV1Api()
