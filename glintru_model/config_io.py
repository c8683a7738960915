"""Configs from YAML and JSON, with one clear line where a setting cannot be used."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from glintru_model.config import MODEL_NAMES, GlintruRecommender, PipelineConfig, RecommenderConfig, SasrecRecommender
from glintru_model.errors import ConfigError

ConfigT = TypeVar("ConfigT", bound=BaseModel)
_RECOMMENDERS: TypeAdapter[GlintruRecommender | SasrecRecommender] = TypeAdapter(RecommenderConfig)


def parse(kind: type[ConfigT], values: str | Mapping[str, Any], origin: str) -> ConfigT:
    """Build a config from JSON text or a mapping.

    Args:
        kind: the config's class.
        values: JSON text, or a mapping of plain values.
        origin: what the user would call the place they came from; it opens the error's line.

    Raises:
        ConfigError: names the key, the value found and what is allowed.
    """
    try:
        if isinstance(values, str):
            return kind.model_validate_json(values)
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_first_problem(kind, error)}") from error


def parse_recommender(values: str, origin: str) -> GlintruRecommender | SasrecRecommender:
    """Build either recommender's config from JSON text that carries its `name`.

    Raises:
        ConfigError: as `parse`.
    """
    try:
        return _RECOMMENDERS.validate_json(values)
    except ValidationError as error:
        kind = SasrecRecommender if '"sasrec"' in values else GlintruRecommender
        raise ConfigError(f"{origin}: {_first_problem(kind, error)}") from error


def load_pipeline_config(path: Path | None, overrides: Mapping[str, Any] | None = None) -> PipelineConfig:
    """Read a run's YAML file (or take every default) and lay overrides over it.

    Args:
        path: the YAML file; None means the defaults alone.
        overrides: dotted keys to values, e.g. `{"ingest.source": "log.csv"}`.

    Raises:
        ConfigError: the file is missing, is not YAML, or holds a setting that cannot be used.
    """
    import yaml  # here, because the trainer reads settings as JSON alone and does without it

    values: Any = {}
    if path is not None:
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise ConfigError(f"{path}: cannot read the configuration: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: found {type(values).__name__} at the top, expected a mapping of settings")
    for dotted, value in (overrides or {}).items():
        _set_dotted(values, dotted, value)
    return parse(PipelineConfig, values, str(path or "settings"))


def require_model_name(name: str) -> str:
    """Return the name of a model that exists.

    Raises:
        ConfigError: no such model.
    """
    if name not in MODEL_NAMES:
        raise ConfigError(f"model {name!r} does not exist, allowed: {', '.join(MODEL_NAMES)}")
    return name


def _set_dotted(values: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, leaf = dotted.split(".")
    for parent in parents:
        child = values.get(parent)
        if child is None:
            child = values[parent] = {}
        if not isinstance(child, dict):
            raise ConfigError(f"setting {dotted!r}: {parent!r} is {child!r}, expected a mapping")
        values = child
    values[leaf] = value


def _first_problem(kind: type[BaseModel], error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    location = list(problem["loc"])
    dotted = ".".join(str(part) for part in location) or "settings"
    if problem["type"] == "extra_forbidden":
        allowed = _allowed_keys(kind, location[:-1])
        close = difflib.get_close_matches(str(location[-1]), allowed, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        return f"unknown setting {dotted!r}{hint}, allowed: {', '.join(allowed)}"
    message = problem["msg"].removeprefix("Value error, ")
    found = problem["input"]
    shown = "" if isinstance(found, dict | BaseModel) else f"found {found!r}: "
    return f"{dotted}: {shown}{message[:1].lower()}{message[1:]}"


def _allowed_keys(kind: type[BaseModel], location: list[int | str]) -> list[str]:
    current: Any = kind
    for part in location:
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:  # a union's discriminator stands in the location but is no field
            continue
        candidates = [field.annotation, *get_args(field.annotation)]
        current = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), current)
    return list(current.model_fields)
