"""What each task asks of a cluster, in one place: CPU, memory, GPU, nodes, retries, caching.

A profile is chosen when the pipeline is compiled. kfp.local ignores all of it but the caching flags.
"""

from dataclasses import dataclass, field

from kfp.dsl import PipelineTask

# Steps without side effects whose result depends on their parameters and inputs alone.
CACHED_STEPS = ("ingest interactions", "build sequences")
# Steps that train: they take the profile's accelerator.
ACCELERATED_STEPS = ("tune", "train", "evaluate")


@dataclass(frozen=True)
class Size:
    """CPU and memory of a task, in Kubernetes' own notation."""

    cpu: str
    memory: str


@dataclass(frozen=True)
class Profile:
    """Where tasks run and what they ask for."""

    name: str
    light: Size | None = None
    heavy: Size | None = None
    gpu_type: str = ""
    gpu_count: int = 0
    node_selector: dict[str, str] = field(default_factory=dict)
    gpu_toleration_key: str = ""
    shared_memory: str = ""
    retries: int = 0
    parallelism: int = 2
    secret: str = ""  # a Kubernetes secret whose keys become environment variables


SHARED_MEMORY_PATH = "/dev/shm"  # noqa: S108 - where processes of one pod share tensors

# The secret of the tracking server's and the study database's credentials, as infra/ creates it.
SECRET_NAME = "glintru-credentials"  # noqa: S105 - a name, not a secret
SECRET_KEYS = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "GLINTRU_STUDY_STORAGE")

PROFILES = {
    "local": Profile("local"),
    "kind": Profile("kind", Size("500m", "2Gi"), Size("1", "4Gi"), retries=1, secret=SECRET_NAME),
    "gpu": Profile(
        "gpu",
        Size("2", "8Gi"),
        Size("8", "32Gi"),
        gpu_type="nvidia.com/gpu",
        gpu_count=1,
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
    accelerated = name.split(maxsplit=1)[0] in ACCELERATED_STEPS
    size = profile.heavy if accelerated else profile.light
    if size is not None:
        task.set_cpu_request(size.cpu).set_cpu_limit(size.cpu)
        task.set_memory_request(size.memory).set_memory_limit(size.memory)
    if profile.retries:
        task.set_retry(profile.retries, backoff_duration="30s", backoff_factor=2, backoff_max_duration="600s")
    if accelerated and profile.gpu_count:
        task.set_accelerator_type(profile.gpu_type).set_accelerator_limit(profile.gpu_count)
    _place_on_kubernetes(task, profile, accelerated)
    return task


def _place_on_kubernetes(task: PipelineTask, profile: Profile, accelerated: bool) -> None:
    """Everything that only Kubernetes knows: it lands in the compiled file's platform document."""
    from kfp import kubernetes

    if profile.secret:
        kubernetes.use_secret_as_env(
            task, secret_name=profile.secret, secret_key_to_env={key: key for key in SECRET_KEYS}, optional=True
        )
    if not accelerated or not profile.gpu_count:
        return
    for key, value in profile.node_selector.items():
        kubernetes.add_node_selector(task, label_key=key, label_value=value)
    kubernetes.add_toleration(task, key=profile.gpu_toleration_key, operator="Exists", effect="NoSchedule")
    kubernetes.empty_dir_mount(
        task, volume_name="shm", mount_path=SHARED_MEMORY_PATH, medium="Memory", size_limit=profile.shared_memory
    )
