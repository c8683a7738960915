"""What each column of a log may hold, as SQL: which values are refused, which type the column gets."""

from collections.abc import Callable
from dataclasses import dataclass, field

from glintru_model.errors import DataError

_INTEGER_TYPES = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT"}
_TIME_TYPES = {"TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE", "DATE"}
_MAX_EXACT_FLOAT, _MAX_EXACT_DOUBLE = 2**24, 2**53  # beyond these not every whole number exists
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_ISO = r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}(:?\d{2})?)?)?"
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}

Answers = dict[str, int]


@dataclass(frozen=True)
class ColumnRule:
    """How one column is checked and typed.

    Attributes:
        column: its name.
        missing: SQL that is true where there is no value; "" where that is allowed.
        counts: SQL conditions whose rows are counted over the whole log before anything is decided.
        refusals: given those counts, conditions that no row may meet and what is allowed instead, in this order.
        expression: given those counts, the typed value.
    """

    column: str
    missing: str
    refusals: Callable[[Answers], list[tuple[str, str]]]
    expression: Callable[[Answers], str]
    counts: dict[str, str] = field(default_factory=dict)


def id_rule(column: str, kind: str, where: str, *, is_text: bool) -> ColumnRule:
    """Ids become int64 where all are whole numbers, else strings.

    Raises:
        DataError: the column's type can hold no id.
    """
    missing = f"{column} IS NULL OR CAST({column} AS VARCHAR) = ''" if kind == "VARCHAR" else f"{column} IS NULL"
    if kind in _INTEGER_TYPES:
        large = [(f"TRY_CAST({column} AS BIGINT) IS NULL", "expected at most 64 bits")]
        refusals = large if kind in {"UBIGINT", "HUGEINT"} else []
        return ColumnRule(column, missing, lambda _: refusals, lambda _: f"CAST({column} AS BIGINT)")
    if kind in {"FLOAT", "DOUBLE"}:
        not_whole = f"NOT isfinite({column}) OR {column} <> trunc({column}) OR abs({column}) > {_MAX_EXACT_DOUBLE}"
        fractions = [(not_whole, "expected whole numbers or text")]
        return ColumnRule(column, missing, lambda _: fractions, lambda _: f"CAST({column} AS BIGINT)")
    if kind not in {"VARCHAR", "UUID"} and not kind.startswith("ENUM"):
        raise DataError(f"{where}: {column} is of type {kind}, expected whole numbers or text")
    if not is_text:
        return ColumnRule(column, missing, lambda _: [], lambda _: f"CAST({column} AS VARCHAR)")
    # Only a number written in the one usual way: '007' and '7' stay two ids.
    usual = f"regexp_full_match({column}, '0|-?[1-9][0-9]*') AND TRY_CAST({column} AS BIGINT) IS NOT NULL"
    return ColumnRule(
        column,
        missing,
        lambda _: [],
        lambda found: f"CAST({column} AS {'VARCHAR' if found['unusual'] else 'BIGINT'})",
        {"unusual": f"NOT ({missing}) AND NOT ({usual})"},
    )


def timestamp_rule(kind: str, where: str, unit: str) -> ColumnRule:
    """Times become int64 seconds, or float64 where one has a fraction; see `ingest` for what is understood.

    Raises:
        DataError: the column's type can hold no time.
    """
    if kind in _TIME_TYPES:
        micros = "epoch_us(timestamp)" if kind != "DATE" else "epoch_us(CAST(timestamp AS TIMESTAMP))"
        return _moments(micros, [])
    if kind == "VARCHAR":
        return _text_times(unit)
    if kind in _INTEGER_TYPES:
        large = [("TRY_CAST(timestamp AS BIGINT) IS NULL", "expected at most 64 bits")]
        return _numbers("TRY_CAST(timestamp AS BIGINT)", large if kind in {"UBIGINT", "HUGEINT"} else [], unit)
    if kind in {"FLOAT", "DOUBLE"} or kind.startswith("DECIMAL"):
        value = "CAST(timestamp AS DOUBLE)"
        refusals = [(f"NOT isfinite({value})", f"expected Unix {UNIT_NAMES[unit]}")]
        if kind == "FLOAT":
            rounded = f"timestamp >= {_MAX_EXACT_FLOAT}"
            refusals.append((rounded, "32-bit floats round times of this size, expected int64 or float64"))
        return _numbers(value, refusals, unit)
    raise DataError(f"{where}: timestamp is of type {kind}, expected Unix {UNIT_NAMES[unit]}")


def rating_rule(kind: str) -> ColumnRule:
    """Ratings become float64; one may be missing."""
    not_number = (f"rating IS NOT NULL AND NOT regexp_full_match(rating, '{_NUMBER}')", "expected a number")
    return ColumnRule(
        "rating", "", lambda _: [not_number] if kind == "VARCHAR" else [], lambda _: "CAST(rating AS DOUBLE)"
    )


def _moments(micros: str, refusals: list[tuple[str, str]]) -> ColumnRule:
    before = (f"{micros} < 0", "expected no time before 1970")
    return ColumnRule(
        "timestamp",
        "timestamp IS NULL",
        lambda _: [*refusals, before],
        lambda found: f"{micros} / 1000000.0" if found["fractions"] else f"{micros} // 1000000",
        {"fractions": f"{micros} % 1000000 <> 0"},
    )


def _text_times(unit: str) -> ColumnRule:
    """Numbers, or ISO 8601 where no value at all is a number."""
    is_number = f"regexp_full_match(timestamp, '{_NUMBER}')"
    digits = "regexp_full_match(timestamp, '[+-]?[0-9]+')"
    too_large = (f"{digits} AND TRY_CAST(timestamp AS BIGINT) IS NULL", "expected at most 64 bits")
    not_number = (f"timestamp <> '' AND NOT {is_number}", f"expected Unix {UNIT_NAMES[unit]}")
    whole = _numbers("TRY_CAST(timestamp AS BIGINT)", [not_number, too_large], unit)
    broken = _numbers("TRY_CAST(timestamp AS DOUBLE)", [not_number, too_large], unit)
    micros = "epoch_us(TRY_CAST(timestamp AS TIMESTAMPTZ))"
    is_iso = f"regexp_full_match(timestamp, '{_ISO}') AND {micros} IS NOT NULL"
    dates = _moments(micros, [(f"timestamp <> '' AND NOT ({is_iso})", "expected ISO 8601, as the other times")])

    def chosen(found: Answers) -> ColumnRule:
        if found["iso"] and not found["number"]:
            return dates
        return broken if found["written_broken"] else whole

    def prefixed(found: Answers) -> Answers:
        prefix = {id(dates): "dates_", id(whole): "whole_", id(broken): "broken_"}[id(chosen(found))]
        return {name.removeprefix(prefix): count for name, count in found.items() if name.startswith(prefix)}

    counts = {"number": is_number, "iso": is_iso, "written_broken": f"{is_number} AND NOT {digits}"}
    for prefix, rule in (("dates_", dates), ("whole_", whole), ("broken_", broken)):
        counts |= {prefix + name: condition for name, condition in rule.counts.items()}
    return ColumnRule(
        "timestamp",
        "timestamp IS NULL OR timestamp = ''",
        lambda found: chosen(found).refusals(prefixed(found)),
        lambda found: chosen(found).expression(prefixed(found)),
        counts,
    )


def _numbers(value: str, refusals: list[tuple[str, str]], unit: str) -> ColumnRule:
    factor, is_double = UNITS[unit], "DOUBLE" in value
    # 1973 to 5138 in each unit; a smaller number is a position or an early date, and says nothing about the unit.
    ranges = {name: f"{value} >= {10**8 * size} AND {value} < {10**11 * size}" for name, size in UNITS.items()}
    counts = dict(ranges)
    if is_double:
        counts["fractions"] = f"{value} <> trunc({value}) OR {value} > {_MAX_EXACT_DOUBLE}"
    if factor > 1:
        counts["fractions"] = f"{value} % {factor} <> 0"

    def refused(found: Answers) -> list[tuple[str, str]]:
        rules = [*refusals, (f"{value} < 0", "expected no negative time")]
        first, *others = [name for name in UNITS if found[name]] or [""]
        return rules + [
            (ranges[name], f"it looks like {UNIT_NAMES[name]} where others look like {UNIT_NAMES[first]}")
            for name in others
        ]

    def typed(found: Answers) -> str:
        if factor > 1:
            return f"{value} / {factor}.0" if found["fractions"] else f"CAST({value} AS BIGINT) // {factor}"
        return f"CAST({value} AS BIGINT)" if not found.get("fractions", 0) else value

    return ColumnRule("timestamp", "timestamp IS NULL", refused, typed, counts)
