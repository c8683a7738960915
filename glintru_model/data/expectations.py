"""What a log is held to: the settings' own bounds, and counts that a source has published."""

from typing import Any

from glintru_model.config import ExpectationsConfig
from glintru_model.data.interactions import Step
from glintru_model.errors import DataError


def refuse_unexpected(config: ExpectationsConfig, left: Step, description: dict[str, Any]) -> None:
    """Check the cleaned log against the settings.

    Args:
        config: the bounds.
        left: the counts after all filters.
        description: `describe_events` of it.

    Raises:
        DataError: a bound does not hold; it names the setting, the value found and what is allowed.
    """
    for name in ("users", "items", "interactions"):
        found, least = getattr(left, f"num_{name}"), getattr(config, f"min_{name}")
        if found < least:
            raise DataError(f"expectations.min_{name} {least:,} does not hold: {found:,} {name} are left")
    late, share = description["num_out_of_order"], description["num_out_of_order"] / left.num_interactions
    if share > config.max_out_of_order_share:
        raise DataError(
            f"expectations.max_out_of_order_share {config.max_out_of_order_share:.2%} does not hold: {late:,} of "
            f"{left.num_interactions:,} interactions ({share:.2%}) stand after a later one"
        )


def verdict_on(name: str, found: dict[str, int], expected: dict[str, int], source: str) -> dict[str, Any]:
    """Compare counts with published ones; returns the published ones, `met`, and `verdict` in words."""
    met = found == expected
    verdict = (
        f"{name} yields {_in_words(found)}, "
        f"{'as expected' if met else f'expected were {_in_words(expected)}'} ({source})"
    )
    return {**expected, "met": met, "verdict": verdict}


def _in_words(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name.removeprefix('num_')}" for name, count in counts.items())
