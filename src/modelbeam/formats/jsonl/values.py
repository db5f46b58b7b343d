"""What each type of Python, NumPy, pandas and Arrow becomes in JSON; the table is docs/types.md.

The rules do not depend on how a value arrives: the same moment is the same text as a ``datetime``,
a ``numpy.datetime64``, a ``pandas.Timestamp`` or in an Arrow column. pandas is not imported here:
where it is not installed there is nothing of it to be written.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import enum
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np
import orjson

_DAY = 86_400
_NANO = 1_000_000_000


def plain_value(value: Any) -> Any:
    """What ``orjson`` does not know by itself, as something that it knows; its ``default``.

    Raises:
        TypeError: there is no JSON for it.
    """
    if isinstance(value, (np.ndarray, np.generic)):
        return _from_numpy(value)
    if isinstance(value, decimal.Decimal):
        return str(value) if value.is_finite() else float(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(bytes(value)).decode("ascii")
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (set, frozenset)):
        return _ordered(value)
    if isinstance(value, tuple):  # a named one
        return list(value)
    if isinstance(value, (os.PathLike, uuid.UUID)):
        return str(value)
    name = type(value).__name__
    if name in ("NaTType", "NAType"):  # of pandas
        return None
    if isinstance(value, datetime.datetime):  # pandas.Timestamp, and other subclasses
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return _duration(_nanoseconds(value))
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, str):  # a subclass
        return str(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True)
    if hasattr(value, "as_py") and hasattr(value, "type"):  # a scalar of Arrow
        return rows_of_column(_as_array(value))[0]
    if name == "DataFrame":
        return value.to_dict("records")
    if name in ("Series", "Index") and hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"a {name} cannot be written as JSON")


def needs_care(values: Iterable[Any]) -> bool:
    """Whether some NumPy values are ones that ``orjson`` would write in another way than we do."""
    listed = list(values)
    kinds = set(map(type, listed))
    if not kinds.isdisjoint(_CAREFUL):
        return True
    if kinds.isdisjoint(_CONTAINERS):
        return False
    return any(
        _writes_otherwise(value.dtype)
        if type(value) is np.ndarray
        else needs_care(value.values())
        if type(value) is dict
        else type(value) in (list, tuple) and needs_care(value)
        for value in listed
    )


_CAREFUL = {np.datetime64, np.timedelta64, np.float16}
_CONTAINERS = {np.ndarray, dict, list, tuple}


def _writes_otherwise(dtype: Any) -> bool:
    return dtype.kind not in "biuf" or dtype == np.float16


def careful(value: Any) -> Any:
    """A value with all of NumPy's in it as Python's own, for where :func:`needs_care`."""
    if isinstance(value, (np.ndarray, np.generic)):
        return careful(_from_numpy(value)) if isinstance(value, np.ndarray) else _from_numpy(value)
    if isinstance(value, dict):
        return {key: careful(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [careful(one) for one in value]
    return value


def _ordered(values: Iterable[Any]) -> list[Any]:
    """The members of a set in an order that is the same every time."""
    listed = list(values)
    try:
        return sorted(listed)
    except TypeError:
        return sorted(listed, key=lambda one: orjson.dumps(one, plain_value))


def _from_numpy(value: Any) -> Any:
    kind = value.dtype.kind
    if isinstance(value, np.ndarray) and value.ndim > 1:
        return [_from_numpy(row) for row in value]
    if kind == "f" and value.dtype.itemsize in (2, 4):
        return shortest(value).tolist()
    if kind in "mM":
        flat = np.atleast_1d(value)
        made = (_moments if kind == "M" else _durations)(flat)
        return made if isinstance(value, np.ndarray) and value.ndim else made[0]
    if kind == "V" and value.dtype.names:
        if isinstance(value, np.ndarray) and value.ndim:
            return [_from_numpy(row) for row in value]
        return {name: value[name] for name in value.dtype.names}
    if kind == "c":
        raise TypeError("a complex number cannot be written as JSON")
    if kind == "f" and value.dtype.itemsize > 8:
        return value.astype(np.float64).tolist()
    return value.tolist()


def shortest(values: Any) -> Any:
    """Floats of 2 or 4 bytes as the doubles whose text is the shortest that means them."""
    return np.asarray(values).astype(np.str_).astype(np.float64)


# Moments, days, times and spans


def _fraction(nanoseconds: int) -> str:
    """Nothing, six digits or nine: as few as say it all."""
    if not nanoseconds:
        return ""
    return f".{nanoseconds // 1000:06}" if nanoseconds % 1000 == 0 else f".{nanoseconds:09}"


def _moments(values: Any) -> list[str | None]:
    """``numpy.datetime64`` of any unit as ISO 8601, without a zone; ``None`` for not-a-time."""
    missing = np.isnat(values)
    if np.datetime_data(values.dtype)[0] in ("Y", "M", "W", "D"):
        texts = np.datetime_as_string(values.astype("M8[D]"), unit="D").tolist()
        return [None if gone else text for gone, text in zip(missing, texts, strict=True)]
    seconds = values.astype("M8[s]")
    # what is finer than nanoseconds is cut off
    left = (values.astype("M8[ns]") - seconds.astype("M8[ns]")).astype(np.int64)
    if not np.array_equal(values.astype("M8[ns]").astype("M8[s]")[~missing], seconds[~missing]):
        left = np.zeros_like(left)  # beyond what nanoseconds reach: of seconds or coarser here
        unit = np.datetime_data(values.dtype)[0]
        if unit in ("ms", "us"):
            left = (values - seconds.astype(values.dtype)).astype(f"m8[{unit}]").astype(np.int64)
            left = left * {"ms": 1_000_000, "us": 1_000}[unit]
    texts = np.datetime_as_string(seconds, unit="s").tolist()
    return [
        None if gone else text + _fraction(int(rest))
        for gone, text, rest in zip(missing, texts, left.tolist(), strict=True)
    ]


def _durations(values: Any) -> list[str | None]:
    unit, step = np.datetime_data(values.dtype)
    if unit in ("Y", "M"):
        whole = values.astype(np.int64) * step
        return [f"P{n}{unit}" for n in whole.tolist()]
    missing = np.isnat(values)
    made = [_duration(int(n) * step * _NANOSECONDS[unit]) for n in values.astype(np.int64).tolist()]
    return [None if gone else text for gone, text in zip(missing, made, strict=True)]


_NANOSECONDS = {
    "W": 7 * _DAY * _NANO,
    "D": _DAY * _NANO,
    "h": 3600 * _NANO,
    "m": 60 * _NANO,
    "s": _NANO,
    "ms": 1_000_000,
    "us": 1_000,
    "ns": 1,
    "ps": 0,
    "fs": 0,
    "as": 0,
    "generic": _NANO,
}


def _nanoseconds(value: datetime.timedelta) -> int:
    whole = (value.days * _DAY + value.seconds) * _NANO + value.microseconds * 1000
    return whole + getattr(value, "nanoseconds", 0)  # of pandas


def _duration(nanoseconds: int) -> str:
    """A span as ISO 8601, in days and seconds: ``P1DT0.5S``; the sign comes first."""
    sign, left = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    days, left = divmod(left, _DAY * _NANO)
    seconds, rest = divmod(left, _NANO)
    text = f"{seconds}{_fraction(rest).rstrip('0')}S"
    if days:
        return f"{sign}P{days}D" + (f"T{text}" if seconds or rest else "")
    return f"{sign}PT{text}"


# Columns of Arrow


def rows_of(batch: Any) -> list[dict[str, Any]]:
    """The rows of an Arrow batch or table as dicts of what JSON has, one a row.

    Raises:
        TypeError: a column has no JSON; the message names it and its type.
    """
    names = batch.schema.names
    columns = []
    for index, name in enumerate(names):
        try:
            columns.append(rows_of_column(batch.column(index)))
        except Exception as error:
            kind = batch.schema.types[index]
            raise TypeError(f"column '{name}' ({kind}) cannot be written: {error}") from error
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)] or [
        {} for _ in range(batch.num_rows)
    ]


def rows_of_column(column: Any) -> list[Any]:
    """The values of an Arrow array as what JSON has."""
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        return [value for chunk in column.chunks for value in rows_of_column(chunk)]
    kind = column.type
    if isinstance(column, pa.ExtensionArray):
        return _extension(column)
    for test, convert in _CONVERTERS:
        if getattr(pa.types, test, _never)(kind):
            made: list[Any] = convert(pa, column)
            return made
    values: list[Any] = column.to_pylist()
    return values


def _never(_: Any) -> bool:
    return False


def _extension(column: Any) -> list[Any]:
    if column.type.extension_name == "arrow.uuid":
        return [None if v is None else str(uuid.UUID(bytes=v)) for v in column.storage.to_pylist()]
    if column.type.extension_name == "arrow.bool8":
        return [None if v is None else bool(v) for v in column.storage.to_pylist()]
    if column.type.extension_name == "arrow.fixed_shape_tensor" and not column.null_count:
        return [_from_numpy(tensor) for tensor in column.to_numpy_ndarray()]
    return rows_of_column(column.storage)


def _as_array(scalar: Any) -> Any:
    import pyarrow as pa

    return pa.repeat(scalar, 1)


def _masked(column: Any, made: Iterable[Any]) -> list[Any]:
    """The values, and ``None`` where the column has none."""
    if not column.null_count:
        return list(made)
    valid = column.is_valid().to_pylist()
    return [value if here else None for here, value in zip(valid, made, strict=True)]


def _numbers(column: Any, dtype: Any) -> Any:
    """The raw values of a column of fixed width, whatever stands where it is null."""
    buffer = column.buffers()[1]
    if buffer is None:
        return np.zeros(len(column), dtype)
    return np.frombuffer(buffer, dtype, len(column) + column.offset)[column.offset :]


def _small_floats(pa: Any, column: Any) -> list[Any]:
    dtype = np.float16 if pa.types.is_float16(column.type) else np.float32
    return _masked(column, shortest(_numbers(column, dtype)).tolist())


def _timestamps(_: Any, column: Any) -> list[Any]:
    import pyarrow.compute as pc

    unit = column.type.unit
    utc = _numbers(column, np.int64)
    if column.type.tz is None:
        return _masked(column, _moments(utc.view(f"M8[{unit}]")))
    local = _numbers(pc.local_timestamp(column), np.int64)
    step = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": _NANO}[unit]
    offsets = (local - utc) // step
    texts = _moments(local.view(f"M8[{unit}]"))
    pairs = zip(texts, offsets.tolist(), strict=True)
    return _masked(column, (f"{text}{_offset(offset)}" for text, offset in pairs))


def _offset(seconds: int) -> str:
    sign, left = ("-", -seconds) if seconds < 0 else ("+", seconds)
    hours, left = divmod(left, 3600)
    minutes, left = divmod(left, 60)
    return f"{sign}{hours:02}:{minutes:02}" + (f":{left:02}" if left else "")


def _dates(pa: Any, column: Any) -> list[Any]:
    if pa.types.is_date32(column.type):
        days = _numbers(column, np.int32).astype(np.int64)
    else:
        days = _numbers(column, np.int64) // (_DAY * 1000)
    return _masked(column, _moments(days.view("M8[D]")))


def _times(pa: Any, column: Any) -> list[Any]:
    unit = column.type.unit
    raw = _numbers(column, np.int32 if pa.types.is_time32(column.type) else np.int64)
    made = []
    for value in raw.tolist():
        seconds, rest = divmod(value * _NANOSECONDS[unit], _NANO)
        minutes, second = divmod(seconds, 60)
        made.append(f"{minutes // 60:02}:{minutes % 60:02}:{second:02}{_fraction(rest)}")
    return _masked(column, made)


def _spans(_: Any, column: Any) -> list[Any]:
    step = _NANOSECONDS[column.type.unit]
    return _masked(column, [_duration(v * step) for v in _numbers(column, np.int64).tolist()])


def _intervals(_: Any, column: Any) -> list[Any]:
    made: list[str | None] = []
    for value in column.to_pylist():
        if value is None:
            made.append(None)
            continue
        months, days, nanoseconds = value
        rest = _duration(nanoseconds).removeprefix("PT") if nanoseconds >= 0 else None
        text = f"P{months}M{days}D"
        if nanoseconds:
            text += f"T{rest}" if rest else f"T-{_duration(-nanoseconds).removeprefix('PT')}"
        made.append(text)
    return made


def _bytes(_: Any, column: Any) -> list[Any]:
    return [
        None if value is None else base64.b64encode(value).decode("ascii")
        for value in column.to_pylist()
    ]


def _decimals(_: Any, column: Any) -> list[Any]:
    return [None if value is None else str(value) for value in column.to_pylist()]


def _labels(_: Any, column: Any) -> list[Any]:
    values = rows_of_column(column.dictionary)
    return [None if index is None else values[index] for index in column.indices.to_pylist()]


def _lists(pa: Any, column: Any) -> list[Any]:
    kind = column.type.value_type
    if pa.types.is_integer(kind) or pa.types.is_float64(kind) or pa.types.is_boolean(kind):
        values: list[Any] = column.to_pylist()
        return values
    return [None if not one.is_valid else rows_of_column(one.values) for one in column]


def _structs(_: Any, column: Any) -> list[Any]:
    names = [field.name for field in column.type]
    columns = [rows_of_column(part) for part in column.flatten()]
    rows = zip(*columns, strict=True) if columns else ((),) * len(column)
    return _masked(column, (dict(zip(names, row, strict=True)) for row in rows))


def _maps(pa: Any, column: Any) -> list[Any]:
    named = pa.types.is_string(column.type.key_type) or pa.types.is_large_string(
        column.type.key_type
    )
    made: list[Any] = []
    for one in column:
        if not one.is_valid:
            made.append(None)
            continue
        entries = one.values
        keys, items = (rows_of_column(entries.field(index)) for index in (0, 1))
        pairs = zip(keys, items, strict=True)
        made.append(dict(pairs) if named else [{"key": k, "value": v} for k, v in pairs])
    return made


def _encoded_runs(_: Any, column: Any) -> list[Any]:
    import pyarrow.compute as pc

    return rows_of_column(pc.run_end_decode(column))


_CONVERTERS: tuple[tuple[str, Callable[[Any, Any], list[Any]]], ...] = (
    ("is_float16", _small_floats),
    ("is_float32", _small_floats),
    ("is_timestamp", _timestamps),
    ("is_date", _dates),
    ("is_time", _times),
    ("is_duration", _spans),
    ("is_interval", _intervals),
    ("is_decimal", _decimals),
    ("is_binary", _bytes),
    ("is_large_binary", _bytes),
    ("is_fixed_size_binary", _bytes),
    ("is_binary_view", _bytes),
    ("is_dictionary", _labels),
    ("is_map", _maps),
    ("is_list", _lists),
    ("is_large_list", _lists),
    ("is_fixed_size_list", _lists),
    ("is_list_view", _lists),
    ("is_large_list_view", _lists),
    ("is_struct", _structs),
    ("is_run_end_encoded", _encoded_runs),
)
"""The name of a test in ``pyarrow.types``, and what makes values of such a column."""
