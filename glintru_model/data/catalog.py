"""Datasets known by name: where their publisher keeps them, how they are written, what they must yield.

Counts are stated only where a source names them; `source_of_counts` says which. Nothing is bundled: a run downloads
the file from its publisher, or takes a copy that lies in the downloads folder already.
"""

import difflib
from dataclasses import dataclass, field

from glintru_model.config import ColumnMapping
from glintru_model.data.formats import CSV, JSONL, LogFormat
from glintru_model.errors import DataError

_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
_AMAZON = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
_MOVIELENS_COLUMNS = ColumnMapping(user_id="user", item_id="movie", timestamp="timestamp", rating="rating")
_MOVIELENS_NAMES = ("user", "movie", "rating", "timestamp")
_MOVIELENS_LICENCE = (
    "GroupLens: research use with acknowledgement; no redistribution, no commercial use without permission"
)
_AMAZON_LICENCE = "Published for research by J. McAuley (UCSD); the reviews are Amazon's, no licence is stated"


@dataclass(frozen=True)
class Counts:
    """How large a log is."""

    num_users: int
    num_items: int
    num_interactions: int


@dataclass(frozen=True)
class Titles:
    """The archive's file of titles, and which of its columns are the item's id and title."""

    member: str
    format: LogFormat
    item_id: str = "item_id"
    title: str = "title"


@dataclass(frozen=True)
class CatalogEntry:
    """One dataset.

    Attributes:
        url: the publisher's file.
        checksum_url: where the publisher states the file's MD5; "" where it states none.
        member: the log within the zip; "" where the file itself is the log.
        format, columns: how the log is written.
        titles: where the archive has titles.
        min_count: users and items with fewer interactions are left out, counted once in the whole log (not until
            nothing changes, as k-core does); 0 leaves out none.
        expected: what the log must yield, by the run's `k_core`.
        source_of_counts: who says so.
        licence: in one line.
    """

    name: str
    url: str
    format: LogFormat
    columns: ColumnMapping
    licence: str
    source_of_counts: str
    checksum_url: str = ""
    member: str = ""
    titles: Titles | None = None
    min_count: int = 0
    expected: dict[int, Counts] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """Name of the file in the downloads folder: the publisher's."""
        return self.url.rsplit("/", 1)[1]


_ENTRIES = (
    CatalogEntry(
        name="ml-100k",
        url=f"{_GROUPLENS}/ml-100k.zip",
        checksum_url=f"{_GROUPLENS}/ml-100k.zip.md5",
        member="ml-100k/u.data",
        format=LogFormat("csv", delimiter="\t", quote="", names=_MOVIELENS_NAMES),
        columns=_MOVIELENS_COLUMNS,
        titles=Titles(
            "ml-100k/u.item",
            LogFormat(
                "csv",
                delimiter="|",
                quote="",
                encoding="latin-1",
                names=("item_id", "title", *(f"other_{number}" for number in range(22))),
            ),
        ),
        expected={0: Counts(943, 1_682, 100_000)},
        source_of_counts="the publisher's README, the log as published",
        licence=_MOVIELENS_LICENCE,
    ),
    CatalogEntry(
        name="ml-1m",
        url=f"{_GROUPLENS}/ml-1m.zip",
        checksum_url=f"{_GROUPLENS}/ml-1m.zip.md5",
        member="ml-1m/ratings.dat",
        format=LogFormat("csv", delimiter="::", quote="", names=_MOVIELENS_NAMES),
        columns=_MOVIELENS_COLUMNS,
        titles=Titles(
            "ml-1m/movies.dat",
            LogFormat("csv", delimiter="::", quote="", encoding="latin-1", names=("item_id", "title", "genres")),
        ),
        expected={0: Counts(6_040, 3_706, 1_000_209), 5: Counts(6_040, 3_416, 999_611)},
        source_of_counts="the publisher's README; with k_core 5 as in SASRec's repository",
        licence=_MOVIELENS_LICENCE,
    ),
    CatalogEntry(
        name="ml-20m",
        url=f"{_GROUPLENS}/ml-20m.zip",
        checksum_url=f"{_GROUPLENS}/ml-20m.zip.md5",
        member="ml-20m/ratings.csv",
        format=CSV,
        columns=ColumnMapping(user_id="userId", item_id="movieId", timestamp="timestamp", rating="rating"),
        titles=Titles("ml-20m/movies.csv", CSV, item_id="movieId"),
        expected={0: Counts(138_493, 26_744, 20_000_263)},
        source_of_counts="the publisher's README, the movies that were rated",
        licence=_MOVIELENS_LICENCE,
    ),
    CatalogEntry(
        name="amazon-beauty",
        url=f"{_AMAZON}/reviews_Beauty_5.json.gz",
        format=JSONL,
        columns=ColumnMapping(user_id="reviewerID", item_id="asin", timestamp="unixReviewTime", rating="overall"),
        expected={0: Counts(22_363, 12_101, 198_502), 5: Counts(22_363, 12_101, 198_502)},
        source_of_counts="S3-Rec's repository; the publisher's 5-core file as it is",
        licence=_AMAZON_LICENCE,
    ),
    CatalogEntry(
        name="amazon-video-games",
        url=f"{_AMAZON}/ratings_Video_Games.csv",
        format=LogFormat("csv", names=("user", "item", "rating", "timestamp")),
        columns=ColumnMapping(user_id="user", item_id="item", timestamp="timestamp", rating="rating"),
        min_count=5,
        expected={0: Counts(31_013, 23_715, 287_107)},
        source_of_counts="SASRec's repository: users and items with 5 or more, counted once",
        licence=_AMAZON_LICENCE,
    ),
)
CATALOG = {entry.name: entry for entry in _ENTRIES}


def find_entry(name: str) -> CatalogEntry:
    """Look a dataset up.

    Raises:
        DataError: no dataset (and no file) has that name; the nearest name is offered.
    """
    if name in CATALOG:
        return CATALOG[name]
    close = difflib.get_close_matches(name.lower(), ["synthetic", *CATALOG], n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise DataError(
        f"source {name!r}: no such file and no such dataset{hint}, known datasets: synthetic, {', '.join(CATALOG)}"
    )
