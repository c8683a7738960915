"""Which alias a new version gets: the rule alone, without a registry."""

from dataclasses import dataclass
from typing import Literal

from glintru_model.config import RegistryConfig


@dataclass(frozen=True)
class Contest:
    """A newcomer and the champion on the same validation users.

    Attributes:
        metric: what was compared, e.g. `ndcg_at_10`.
        num_users: how many users.
        newcomer, champion: the metric's mean.
        difference, low, high: newcomer minus champion with its 95 % interval, by paired bootstrap.
        p_value: two-sided, of no difference.
    """

    metric: str
    num_users: int
    newcomer: float
    champion: float
    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class Refusal:
    """Why the champion cannot serve as a yardstick, as the end of a sentence."""

    reason: str


@dataclass(frozen=True)
class Decision:
    """An alias and, in one sentence, why."""

    alias: Literal["champion", "challenger"]
    reason: str


def decide(champion_version: str | None, outcome: Contest | Refusal | None, config: RegistryConfig) -> Decision:
    """Choose on validation alone: only what beats the champion replaces it.

    Args:
        champion_version: the present champion; None if there is none.
        outcome: how the newcomer compares with it; None if there is none.
        config: rule and margin.
    """
    if champion_version is None or outcome is None:
        return Decision("champion", "the first champion: there was none before")
    rival = f"version {champion_version}, the champion"
    if isinstance(outcome, Refusal):
        return Decision("challenger", f"{rival}, is no yardstick: {outcome.reason}")
    figures = (
        f"validation {outcome.metric} {outcome.newcomer:.4f} against {outcome.champion:.4f} of {rival}, on the same "
        f"{outcome.num_users:,} users: difference {outcome.difference:.4f}, 95 % interval {outcome.low:.4f} to "
        f"{outcome.high:.4f}, p = {outcome.p_value:.2g}"
    )
    if config.rule == "manual":
        return Decision("challenger", f"versions are promoted by hand here: {figures}")
    measure, name = (outcome.low, "interval") if config.rule == "paired_bootstrap" else (outcome.difference, "mean")
    asked = f"rule: the {'lower bound of the ' if name == 'interval' else ''}{name} must exceed {config.margin:g}"
    if measure > config.margin:
        return Decision("champion", f"better than the champion: {figures} ({asked})")
    return Decision("challenger", f"not better than the champion: {figures} ({asked})")
