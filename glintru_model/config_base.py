"""What every group of settings is: immutable, closed to unknown keys, and sure of its tunable fields' search ranges."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict


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
