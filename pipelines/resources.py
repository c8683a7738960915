"""What each task asks of a cluster, in one place: CPU, memory, GPU, nodes, time, retries, caching, labels.

A profile is chosen when the pipeline is compiled. kfp.local ignores all of it but the caching flags.
"""

import re
from dataclasses import dataclass, field, replace

from kfp.dsl import PipelineTask

from glintru_model.errors import ConfigError

# Steps without side effects whose result depends on their parameters and inputs alone.
CACHED_STEPS = ("ingest interactions", "build sequences")
# Steps that read the log: they may hold the object store's keys.
SOURCE_STEPS = ("resolve source", "ingest interactions")
# Steps that hold a whole log in memory, by the first word of their names; the last ranks its validation targets anew.
DATA_STEPS = ("ingest", "build", "compare")
# Steps that train: they take the profile's accelerator.
ACCELERATED_STEPS = ("tune", "train", "evaluate")


@dataclass(frozen=True)
class Size:
    """CPU and memory of a task in Kubernetes' own notation, and how long it may run.

    Memory is requested whole, so that a task is never killed for a neighbour's sake; CPU may burst to its limit.
    """

    cpu: str
    cpu_limit: str
    memory: str
    timeout_seconds: int

    def times(self, count: int) -> "Size":
        """Return a size of so many times the CPU and memory, for as long."""
        cpu, cpu_limit, memory = (_times(amount, count) for amount in (self.cpu, self.cpu_limit, self.memory))
        return replace(self, cpu=cpu, cpu_limit=cpu_limit, memory=memory)


def _times(amount: str, count: int) -> str:
    digits = re.match(r"\d+", amount)[0]
    return f"{int(digits) * count}{amount.removeprefix(digits)}"


@dataclass(frozen=True)
class Profile:
    """Where tasks run and what they ask for.

    `retries` are for nodes that are taken away (spot, preemptible) as much as for passing failures: they wait
    30 s, then twice as long each time. A retried tuning worker finds its study again.
    `gpu_count` is each accelerated task's; the final training takes `training_gpus` of one node, with `training`'s CPU
    and memory for each, and starts a process for each. `parallelism` is how many tuning workers of one model run at a
    time.
    """

    name: str
    light: Size | None = None
    data: Size | None = None
    training: Size | None = None
    gpu_type: str = ""
    gpu_count: int = 0
    training_gpus: int = 0
    node_selector: dict[str, str] = field(default_factory=dict)
    gpu_toleration_key: str = ""
    shared_memory: str = ""
    retries: int = 0
    parallelism: int = 2
    secret: str = ""  # a Kubernetes secret whose keys become environment variables

    def with_parallelism(self, parallelism: int) -> "Profile":
        """Return the profile with another number of tuning workers at a time.

        Raises:
            ConfigError: it is not from 1 to 256.
        """
        if not 1 <= parallelism <= 256:
            raise ConfigError(f"parallelism {parallelism}, allowed: 1 to 256")
        return replace(self, parallelism=parallelism)

    def with_training_gpus(self, count: int) -> "Profile":
        """Return the profile with another number of GPUs for the final training of each model.

        Raises:
            ConfigError: it is not from 1 to 64, or the profile has no GPUs.
        """
        if not self.gpu_count:
            raise ConfigError(f"GPUs {count}: profile {self.name!r} has none, allowed: PROFILE=gpu")
        if not 1 <= count <= MAX_GPUS:
            raise ConfigError(f"GPUs {count}, allowed: 1 to {MAX_GPUS}")
        return replace(self, training_gpus=count)


MAX_GPUS = 64  # of one node: more than any has
SHARED_MEMORY_PATH = "/dev/shm"  # noqa: S108 - where processes of one pod share tensors

# The secret of the tracking server's and the study database's credentials, as infra/ creates it.
SECRET_NAME = "glintru-credentials"  # noqa: S105 - a name, not a secret
SECRET_KEYS = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "GLINTRU_STUDY_STORAGE")

# The secret of the keys to a log in S3; only the steps in SOURCE_STEPS get it, and only where it exists.
DATA_SECRET_NAME = "glintru-data-access"  # noqa: S105 - a name, not a secret
DATA_SECRET_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION")

# On every task's pod: network policies and people find them by it.
POD_LABELS = {"app.kubernetes.io/part-of": "glintru", "glintru.dev/task": "true"}
STEP_LABEL = "glintru.dev/step"

_HOUR = 3600
_RETRY_PAUSE_SECONDS, _RETRY_FACTOR = 30, 2

PROFILES = {
    "local": Profile("local"),
    "kind": Profile(
        "kind",
        light=Size("100m", "1", "2Gi", _HOUR),
        data=Size("250m", "2", "2Gi", _HOUR),
        training=Size("500m", "2", "3Gi", 2 * _HOUR),
        retries=1,
        secret=SECRET_NAME,
    ),
    "gpu": Profile(
        "gpu",
        light=Size("500m", "2", "4Gi", 2 * _HOUR),
        data=Size("4", "8", "32Gi", 6 * _HOUR),
        training=Size("6", "8", "32Gi", 24 * _HOUR),
        gpu_type="nvidia.com/gpu",
        gpu_count=1,
        training_gpus=1,
        node_selector={"glintru.dev/pool": "gpu"},
        gpu_toleration_key="nvidia.com/gpu",
        shared_memory="8Gi",
        retries=3,
        parallelism=4,
        secret=SECRET_NAME,
    ),
}


def place(task: PipelineTask, name: str, profile: Profile) -> PipelineTask:
    """Name a task and give it its caching, size, retries and, if it trains, the accelerator."""
    task.set_display_name(name)
    task.set_caching_options(enable_caching=name in CACHED_STEPS)
    step = name.split(maxsplit=1)[0]
    accelerated = step in ACCELERATED_STEPS
    size = profile.training if accelerated else profile.data if step in DATA_STEPS else profile.light
    if size is None:  # this machine: nothing to place
        return task
    # each process would start a thread for each core of the node, many more than the limit lets run
    task.set_env_variable("OMP_NUM_THREADS", size.cpu_limit)
    gpus = profile.training_gpus if step == "train" else profile.gpu_count
    if accelerated and gpus:
        size = size.times(gpus)
        task.set_accelerator_type(profile.gpu_type).set_accelerator_limit(gpus)
    task.set_cpu_request(size.cpu).set_cpu_limit(size.cpu_limit)
    task.set_memory_request(size.memory).set_memory_limit(size.memory)
    _retry(task, profile.retries, size.timeout_seconds)
    _place_on_kubernetes(task, name, profile, size)
    if accelerated and gpus:
        _place_on_gpu_pool(task, profile)
    return task


def _retry(task: PipelineTask, retries: int, timeout_seconds: int) -> None:
    """Retry with growing pauses, however late a task fails.

    What kfp calls the longest backoff is, in its backend, the deadline of all attempts and pauses together, from the
    first one's start: with 10 minutes there, a task that is lost after an hour would never be tried again.
    """
    pauses = sum(_RETRY_PAUSE_SECONDS * _RETRY_FACTOR**attempt for attempt in range(retries))
    task.set_retry(
        retries,
        backoff_duration=f"{_RETRY_PAUSE_SECONDS}s",
        backoff_factor=_RETRY_FACTOR,
        backoff_max_duration=f"{(retries + 1) * timeout_seconds + pauses}s",
    )


def _place_on_kubernetes(task: PipelineTask, name: str, profile: Profile, size: Size) -> None:
    """Everything that only Kubernetes knows: it lands in the compiled file's platform document."""
    from kfp import kubernetes

    kubernetes.set_timeout(task, size.timeout_seconds)
    kubernetes.set_image_pull_policy(task, "IfNotPresent")  # a tag names a commit: it never means another image
    for key, value in {**POD_LABELS, STEP_LABEL: name.replace(" ", "-")}.items():
        kubernetes.add_pod_label(task, label_key=key, label_value=value)
    secrets = {profile.secret: SECRET_KEYS}
    if name in SOURCE_STEPS:
        secrets[DATA_SECRET_NAME] = DATA_SECRET_KEYS
    for secret, keys in secrets.items():
        kubernetes.use_secret_as_env(
            task, secret_name=secret, secret_key_to_env={key: key for key in keys}, optional=True
        )


def _place_on_gpu_pool(task: PipelineTask, profile: Profile) -> None:
    from kfp import kubernetes

    for key, value in profile.node_selector.items():
        kubernetes.add_node_selector(task, label_key=key, label_value=value)
    kubernetes.add_toleration(task, key=profile.gpu_toleration_key, operator="Exists", effect="NoSchedule")
    kubernetes.empty_dir_mount(
        task, volume_name="shm", mount_path=SHARED_MEMORY_PATH, medium="Memory", size_limit=profile.shared_memory
    )
