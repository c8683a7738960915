"""Settings of the log and of the sequences built from it."""

from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from glintru_model.config_base import Frozen


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
