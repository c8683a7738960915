"""Which alias a new version gets: the rule alone, without a registry."""

from dataclasses import dataclass
from typing import Literal

MAIN_METRIC = "ndcg_at_10"


@dataclass(frozen=True)
class Standing:
    """What decides about a version.

    Attributes:
        version: its number in the registry.
        dataset_hash: the sequences that it was trained and validated on.
        validation: NDCG@10 on validation; None where a version was registered without it.
    """

    version: str
    dataset_hash: str
    validation: float | None


@dataclass(frozen=True)
class Decision:
    """An alias and, in one sentence, why."""

    alias: Literal["champion", "challenger"]
    reason: str


def decide(newcomer: Standing, champion: Standing | None) -> Decision:
    """Choose on validation alone: only figures of the same dataset are compared, and only a better one replaces.

    A champion of another dataset stays. Its figure says nothing about the new data, so replacing it would be a
    guess; `promote` moves the alias by hand.
    """
    figure = "nothing" if newcomer.validation is None else f"{newcomer.validation:.4f}"
    if champion is None:
        return Decision("champion", f"the first champion: there was none before (validation {MAIN_METRIC} {figure})")
    if champion.version == newcomer.version:
        return Decision("champion", f"already the champion (validation {MAIN_METRIC} {figure})")
    rival = f"version {champion.version}"
    if champion.dataset_hash != newcomer.dataset_hash:
        return Decision(
            "challenger", f"{rival}, the champion, was validated on another dataset: the figures do not compare"
        )
    if champion.validation is None or newcomer.validation is None:
        return Decision("challenger", f"no validation {MAIN_METRIC} to compare with {rival}, the champion")
    figures = f"validation {MAIN_METRIC} {figure} against {champion.validation:.4f} of {rival} on the same dataset"
    if newcomer.validation > champion.validation:
        return Decision("champion", f"better than the champion: {figures}")
    return Decision("challenger", f"not better than the champion: {figures}")
