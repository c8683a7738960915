"""Every setting of a run, declared once: its default, its bounds and, where it is tuned, its search range.

The models are frozen and refuse unknown keys, so an impossible configuration cannot be built.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

ModelName = Literal["glintru", "sasrec"]
MODEL_NAMES: tuple[ModelName, ...] = ("glintru", "sasrec")


@dataclass(frozen=True)
class Search:
    """Range in which the tuner samples a hyperparameter; it lies on the field that it tunes."""

    low: float
    high: float
    log: bool = False


class Frozen(BaseModel):
    """Immutable settings that refuse unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    @classmethod
    def search_space(cls) -> dict[str, Search]:
        """Map each tunable field's name to its search range."""
        return {
            name: next(m for m in field.metadata if isinstance(m, Search))
            for name, field in cls.model_fields.items()
            if any(isinstance(m, Search) for m in field.metadata)
        }


def seconds_of(moment: str | float) -> float:
    """Read a date, or a date with time (UTC unless it says otherwise), as Unix seconds; a number stays as it is.

    Raises:
        ValueError: the text is no such thing.
    """
    if not isinstance(moment, str):
        return moment
    parsed = datetime.fromisoformat(moment)
    seconds = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    return int(seconds) if seconds == int(seconds) else seconds


def _is_moment(moment: str | float) -> str | float:
    if seconds_of(moment) < 0:
        raise ValueError("expected no time before 1970")
    return moment


Moment = Annotated[int | float | str, AfterValidator(_is_moment)]
MemoryGib = Annotated[float, Field(ge=1)]


class ColumnMapping(Frozen):
    """The log's own column names; `rating` is read only where the log has it."""

    user_id: str = "user_id"
    item_id: str = "item_id"
    timestamp: str = "timestamp"
    rating: str = "rating"

    @model_validator(mode="after")
    def _columns_differ(self) -> Self:
        names = list(self.model_dump().values())
        if len(set(names)) < len(names):
            raise ValueError(f"one column cannot be two things, found: {', '.join(names)}")
        return self


class SyntheticConfig(Frozen):
    """Size of the built-in log (an order-2 Markov process over item clusters plus popularity)."""

    num_users: Annotated[int, Field(ge=10)] = 2_000
    num_items: Annotated[int, Field(ge=20)] = 400
    num_clusters: Annotated[int, Field(ge=2)] = 20
    min_length: Annotated[int, Field(ge=5)] = 12
    max_length: Annotated[int, Field(ge=5)] = 40
    seed: int = 0

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.max_length < self.min_length:
            raise ValueError(f"max_length {self.max_length} is below min_length {self.min_length}")
        if self.num_items < 2 * self.num_clusters:
            raise ValueError(f"num_items {self.num_items} gives {self.num_clusters} clusters fewer than 2 items each")
        if self.max_length > self.num_items // 2:
            raise ValueError(f"max_length {self.max_length} is over half of num_items {self.num_items}")
        return self


class ExpectationsConfig(Frozen):
    """What a log must fulfil; where one does not hold, nothing is written and the run ends.

    `max_null_share`: how many of the rows may lack an id or a time (they are left out). The rest is of what is left
    after the filters. An event is out of order where a later one stands before it in the log.
    """

    max_null_share: Annotated[float, Field(ge=0, le=1)] = 0
    max_out_of_order_share: Annotated[float, Field(ge=0, le=1)] = 1
    min_users: Annotated[int, Field(ge=1)] = 1
    min_items: Annotated[int, Field(ge=1)] = 1
    min_interactions: Annotated[int, Field(ge=1)] = 1


class IngestConfig(Frozen):
    """Where the log comes from and how it is cleaned.

    `source` is `synthetic`, a name of the catalog, a local path, `s3://...` or `https://...`.
    `checksum` is `sha256:<hex>` or `md5:<hex>` of the file that `source` names.
    `time_unit` is that of numeric timestamps; they become seconds. `since` and `until` (not included) bound the time:
    dates (ISO 8601, UTC) or numbers in seconds. `append_to` is a folder of earlier interactions: the events of this log
    that it lacks are added to its own. `memory_gib` is what the step may use before it spills to disk.
    """

    source: Annotated[str, Field(min_length=1)] = "synthetic"
    checksum: Annotated[str, Field(pattern=r"^$|^sha256:[0-9a-f]{64}$|^md5:[0-9a-f]{32}$")] = ""
    format: Literal["auto", "parquet", "csv", "tsv", "inter", "jsonl"] = "auto"
    columns: ColumnMapping = ColumnMapping()
    time_unit: Literal["s", "ms", "us", "ns"] = "s"
    min_rating: float | None = None
    since: Moment | None = None
    until: Moment | None = None
    duplicates: Literal["keep", "first", "last"] = "keep"
    expectations: ExpectationsConfig = ExpectationsConfig()
    append_to: str = ""
    memory_gib: MemoryGib = 4.0
    synthetic: SyntheticConfig = SyntheticConfig()

    @model_validator(mode="after")
    def _window_is_open(self) -> Self:
        if self.since is not None and self.until is not None and seconds_of(self.since) >= seconds_of(self.until):
            raise ValueError(f"since {self.since} must be before until {self.until}")
        return self


class SequencesConfig(Frozen):
    """Which events make the histories, and how they are split.

    `split`: the last two events of each user, or one cut in time for everyone, at quantiles of all events' times or at
    two dates (`2024-01-31`, ISO 8601, or a number in the log's unit) at which validation and test begin.
    `k_core` keeps users and items with that many events among themselves; under `temporal` training events alone count.
    `max_history` keeps the newest training events of each user (0: all). `keep_indices_of` is a folder of earlier
    sequences: its items keep their indices, new ones follow. `memory_gib` is what the step may use before it spills.
    """

    split: Literal["leave_one_out", "temporal"] = "leave_one_out"
    validation_quantile: Annotated[float, Field(gt=0, lt=1)] = 0.8
    test_quantile: Annotated[float, Field(gt=0, lt=1)] = 0.9
    validation_start: Moment | None = None
    test_start: Moment | None = None
    k_core: Annotated[int, Field(ge=0)] = 0
    max_history: Annotated[int, Field(ge=0)] = 0
    keep_indices_of: str = ""
    memory_gib: MemoryGib = 4.0

    @model_validator(mode="after")
    def _cuts_in_order(self) -> Self:
        if self.validation_quantile >= self.test_quantile:
            raise ValueError(
                f"validation_quantile {self.validation_quantile} must be below test_quantile {self.test_quantile}"
            )
        starts = (self.validation_start, self.test_start)
        if starts == (None, None):
            return self
        if self.split != "temporal":
            raise ValueError("validation_start and test_start need split 'temporal'")
        if self.validation_start is None or self.test_start is None:
            raise ValueError("validation_start and test_start are given together or not at all")
        if seconds_of(self.validation_start) >= seconds_of(self.test_start):
            raise ValueError(f"validation_start {starts[0]} must be before test_start {starts[1]}")
        return self


class ArchitectureConfig(Frozen):
    """What both architectures have."""

    max_seq_len: Annotated[int, Field(ge=1, le=100_000)] = 50
    embedding_dim: Annotated[int, Field(ge=1, le=8192)] = 64
    num_blocks: Annotated[int, Field(ge=1, le=64)] = 2
    num_heads: Annotated[int, Field(ge=1)] = 2
    dropout_rate: Annotated[float, Field(ge=0, lt=1), Search(0.1, 0.6)] = 0.2

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.embedding_dim % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide embedding_dim {self.embedding_dim}")
        return self


class GlintruConfig(ArchitectureConfig):
    """GLINT-RU (arXiv 2406.10244).

    `variant`: `causal` (left-padded convolutions, causal linear attention, every position trained at once)
    or `paper` (as released). `released_padding` lets padding leak into `paper` as it does in the release.
    """

    num_blocks: Annotated[int, Field(ge=1, le=64)] = 1
    num_heads: Annotated[int, Field(ge=1)] = 4
    variant: Literal["causal", "paper"] = "causal"
    kernel_size: Annotated[int, Field(ge=1, le=63)] = 3
    released_padding: bool = False

    @model_validator(mode="after")
    def _variant_settings_fit(self) -> Self:
        if self.variant == "paper" and self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {self.kernel_size} must be odd for the symmetric convolutions of 'paper'")
        if self.released_padding and self.variant != "paper":
            raise ValueError("released_padding exists only for variant 'paper'")
        return self


class SasrecConfig(ArchitectureConfig):
    """SASRec (arXiv 1808.09781)."""


class TrainingConfig(Frozen):
    """Optimisation. `num_threads` 0 keeps torch's own choice; `max_seconds` 0 sets no time limit.

    `warm_start_from` is the folder of an earlier model of the same architecture, whose items have the same indices here
    (`sequences.keep_indices_of`): training begins with its weights, new items with fresh ones.
    """

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    batch_size: Annotated[int, Field(ge=1)] = 128
    max_epochs: Annotated[int, Field(ge=1)] = 100
    patience: Annotated[int, Field(ge=1)] = 10
    max_seconds: Annotated[float, Field(ge=0)] = 0
    learning_rate: Annotated[float, Field(gt=0, le=1), Search(3e-4, 1e-2, log=True)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0), Search(1e-3, 0.3, log=True)] = 0.01
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    gradient_clip_norm: Annotated[float, Field(ge=0)] = 1.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    loss: Literal["cross_entropy", "sampled_softmax", "gbce", "bce"] = "cross_entropy"
    num_negatives: Annotated[int, Field(ge=1)] = 256
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    num_threads: Annotated[int, Field(ge=0)] = 0
    warm_start_from: str = ""


class GlintruRecommender(Frozen):
    """GLINT-RU and how it is trained."""

    name: Literal["glintru"] = "glintru"
    architecture: GlintruConfig = GlintruConfig()
    training: TrainingConfig = TrainingConfig()


class SasrecRecommender(Frozen):
    """SASRec and how it is trained."""

    name: Literal["sasrec"] = "sasrec"
    architecture: SasrecConfig = SasrecConfig()
    training: TrainingConfig = TrainingConfig()


RecommenderConfig = Annotated[GlintruRecommender | SasrecRecommender, Field(discriminator="name")]


class ModelsConfig(Frozen):
    """The two recommenders of a pipeline run."""

    glintru: GlintruRecommender = GlintruRecommender()
    sasrec: SasrecRecommender = SasrecRecommender()


class TuningConfig(Frozen):
    """One study per model: `num_trials` in all, shared by `num_workers` parallel workers.

    `num_threads` is each worker's CPU threads; workers of a local run share the machine.
    """

    num_trials: Annotated[int, Field(ge=1)] = 8
    num_workers: Annotated[int, Field(ge=1, le=256)] = 2
    max_epochs: Annotated[int, Field(ge=1)] = 10
    min_epochs_before_pruning: Annotated[int, Field(ge=1)] = 2
    num_threads: Annotated[int, Field(ge=0)] = 1
    seed: int = 0


class EvaluationConfig(Frozen):
    """Full ranking over the whole catalogue; `filter_seen` takes the user's history out of the candidates.

    `sampled_negatives`: also rank among so many items drawn by popularity, as the GLINT-RU paper does; such metrics
    end in `_pop100`. 0 leaves them out.
    `targets`: the last event of each user's part, or each of its events in turn (a user then counts several times;
    intervals resample users, with all their events).
    """

    cutoffs: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (5, 10, 20)
    filter_seen: bool = True
    targets: Literal["last", "successive"] = "last"
    batch_size: Annotated[int, Field(ge=1)] = 256
    bootstrap_samples: Annotated[int, Field(ge=100)] = 1_000
    sampled_negatives: Annotated[int, Field(ge=0, le=10_000)] = 100
    seed: int = 0

    @model_validator(mode="after")
    def _main_cutoff_is_there(self) -> Self:
        if 10 not in self.cutoffs:
            raise ValueError(f"cutoffs {list(self.cutoffs)} must contain 10: models are chosen by ndcg_at_10")
        return self


class RegistryConfig(Frozen):
    """Names in the MLflow Model Registry (`<prefix><model>`, e.g. `glintru`), and what makes a new version champion.

    On the same validation users, by `metric`, newcomer minus champion: `paired_bootstrap` asks that the 95 %
    interval's lower bound exceeds `margin`, `mean` that the mean does, `manual` leaves it to `make promote`.
    """

    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]*$")] = ""
    rule: Literal["paired_bootstrap", "mean", "manual"] = "paired_bootstrap"
    metric: Annotated[str, Field(pattern=r"^(ndcg|recall|mrr)_at_[1-9]\d*$")] = "ndcg_at_10"
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.0


class PipelineConfig(Frozen):
    """One pipeline run, as a YAML file under `pipelines/configs` states it."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")] = "quickstart"
    ingest: IngestConfig = IngestConfig()
    sequences: SequencesConfig = SequencesConfig()
    models: ModelsConfig = ModelsConfig()
    tuning: TuningConfig = TuningConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    registry: RegistryConfig = RegistryConfig()

    @model_validator(mode="after")
    def _registry_metric_is_computed(self) -> Self:
        if int(self.registry.metric.rpartition("_")[2]) not in self.evaluation.cutoffs:
            raise ValueError(
                f"registry.metric {self.registry.metric!r} is not computed, evaluation.cutoffs are "
                f"{list(self.evaluation.cutoffs)}"
            )
        return self
