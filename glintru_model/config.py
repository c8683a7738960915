"""Every setting of a run, declared once: its default, its bounds and, where it is tuned, its search range.

The models are frozen and refuse unknown keys, so an impossible configuration cannot be built. Those of the log and of
its sequences stand in `config_data`; everything is imported from here.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from glintru_model.config_base import Frozen, Search
from glintru_model.config_data import (
    ColumnMapping,
    ExpectationsConfig,
    IngestConfig,
    SequencesConfig,
    SyntheticConfig,
    seconds_of,
)

__all__ = [
    "MODEL_NAMES",
    "ArchitectureConfig",
    "ColumnMapping",
    "EvaluationConfig",
    "ExpectationsConfig",
    "Frozen",
    "GlintruConfig",
    "GlintruRecommender",
    "IngestConfig",
    "ModelName",
    "ModelsConfig",
    "PipelineConfig",
    "RecommenderConfig",
    "RegistryConfig",
    "SasrecConfig",
    "SasrecRecommender",
    "Search",
    "SequencesConfig",
    "SyntheticConfig",
    "TrainingConfig",
    "TuningConfig",
    "seconds_of",
]

ModelName = Literal["glintru", "sasrec"]
MODEL_NAMES: tuple[ModelName, ...] = ("glintru", "sasrec")


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
    `scale_embeddings` multiplies them by sqrt(embedding_dim) where they enter, as SASRec does and the release does not.
    """

    num_blocks: Annotated[int, Field(ge=1, le=64)] = 1
    num_heads: Annotated[int, Field(ge=1)] = 4
    variant: Literal["causal", "paper"] = "causal"
    kernel_size: Annotated[int, Field(ge=1, le=63)] = 3
    scale_embeddings: bool = False
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

    `precision` is that of the matrix products: of all on a GPU; on a CPU, where the layers' are too small for bfloat16
    to pay, of cross-entropy's alone.
    `ema_decay` above 0 validates and keeps a moving average of the weights, so much of which stays at each step.
    `num_processes` of one machine share each batch in the final training; 0 takes one for each GPU that `device` allows
    (`auto` and `cuda` all, `cuda:1` that one), and one on the CPU. `batch_size` is that of all of them together.
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
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    loss: Literal["cross_entropy", "sampled_softmax", "gbce", "bce"] = "cross_entropy"
    num_negatives: Annotated[int, Field(ge=1)] = 256
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    num_threads: Annotated[int, Field(ge=0)] = 0
    num_processes: Annotated[int, Field(ge=0, le=64)] = 0
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
