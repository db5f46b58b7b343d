"""Bad input from end to end: whatever is in the data, each record is predicted or explained."""

from __future__ import annotations

import base64
import gzip
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
from commands import read_lines

import modelbeam
from modelbeam.errors import InputReadError, NothingPredictedError

BOM = b"\xef\xbb\xbf"
LONGEST = 4096
STYLES = ["Doubler", "BatchDoubler", "TableDoubler"]

BLANK = "blank"
JSON = "decode JSONDecodeError"
NO_OBJECT = "decode NotAnObjectError"
TOO_LONG = "decode RecordTooLongError"
NEGATIVE = "predict ValueError"
NOT_FINITE = "encode ValueError"
WRONG = ("validate SchemaError", "validate SchemaValidationError")  # lists, columns
MISSING = ("validate SchemaMissingKeyError", "validate SchemaValidationError")


def deep(levels: int) -> bytes:
    """A good record, nested so many levels deep."""
    return b'{"x": 1.5, "deep": ' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


CASES: list[tuple[bytes, Any]] = [
    # text of the line, and the outcome: one for all styles, or one for each
    (b'{"x": 1.5}', 3.0),
    (b'{"x": 0.0}', 0.0),
    (b'  {"x": 1.5}\t ', 3.0),
    (b'{"x":\r1.5}', 3.0),
    (b'{"x": 1.5, "more": [1, {"x": null}], "x2": "x"}', 3.0),
    ('{"x": 1.5, "größe": "é😀\u2028"}'.encode(), 3.0),
    (b'{"x": 1.5, "s": "\\u0000\\n\\ud83d\\ude00"}', 3.0),
    (b'{"x": 2}', (4, WRONG[0], 4.0)),
    (b'{"x": 1.0, "x": 4.0}', 8.0),
    (b'{"x": 1.0, "\\u0078": 4.0}', 8.0),
    (b'{"x": -1.0}', NEGATIVE),
    (b'{"x": 1e308}', NOT_FINITE),
    (b'{"x": 18446744073709551615}', ("encode TypeError", WRONG[0], 2.0 * 2**64)),
    (b'{"x": 123456789012345678901234567890}', 2 * 123456789012345678901234567890.0),
    (b'{"x": 1e400}', JSON),
    (b'{"x": NaN}', JSON),
    (b'{"x": -Infinity}', JSON),
    (b'{"x": 01}', JSON),
    (b"{}", ("predict KeyError", *MISSING)),
    (b'{"X": 1.5}', ("predict KeyError", *MISSING)),
    (b'{"x": null}', ("predict TypeError", *WRONG)),
    (b'{"x": "1.5"}', ("predict TypeError", *WRONG)),
    (b'{"x": [1.5]}', ("predict TypeError", *WRONG)),
    (b'{"x": {"x": 1.5}}', ("predict TypeError", *WRONG)),
    (b'{"x": true}', (WRONG[0], *WRONG)),
    (b"null", NO_OBJECT),
    (b"true", NO_OBJECT),
    (b"12", NO_OBJECT),
    (b'"text"', NO_OBJECT),
    (b'[{"x": 1.5}]', NO_OBJECT),
    (b"nope", JSON),
    (b'{"x": 1.5', JSON),
    (b'{"x": 1.5}}', JSON),
    (b'{"x": 1.5},', JSON),
    (b'{"x": 1.5} {"x": 2.5}', JSON),
    (b"{'x': 1.5}", JSON),
    (b'{"x": 1.5, "s": "\\ud800"}', JSON),
    (b'{"x": 1.5, "s": "\x01"}', JSON),
    (b'{"x": 1.5, "s": "\xff\xfe"}', JSON),
    (b'\xff\xfe{\x00"\x00', JSON),
    (b'{"x": 1.5}\x00', JSON),
    (b"\x00", JSON),
    (b"\x00" * 200, JSON),
    (BOM + b'{"x": 1.5}', JSON),
    (deep(1024), 3.0),
    (deep(1025), JSON),
    (deep(500).replace(b"1.5", b"\r-1.5"), NEGATIVE),
    (b'{"x": 1.5, "s": "' + b"s" * (LONGEST - 20) + b'"}', 3.0),
    (b'{"x": 1.5, "s": "' + b"s" * (LONGEST - 18) + b'"}', TOO_LONG),
    (b"\xc3\xa9" * 5000, TOO_LONG),
    (b"", BLANK),
    (b" \t ", BLANK),
    (b"\r", BLANK),
]


class Expected(NamedTuple):
    """A line of an input, where it is, and what is to become of it."""

    source: str
    line: int
    offset: int
    raw: bytes
    outcome: Any


def outcome_of(outcome: Any, style: str) -> Any:
    return outcome[STYLES.index(style)] if isinstance(outcome, tuple) else outcome


def write_cases(
    path: Path, cases: list[tuple[bytes, Any]], style: str, *, end: bytes = b"\n", bom: bytes = b""
) -> list[Expected]:
    """Write lines (the last without an end) and say what each is to become."""
    path.write_bytes(bom + end.join(text for text, _ in cases))
    expected, offset = [], 0
    for number, (text, outcome) in enumerate(cases, 1):
        raw = text.rstrip(b"\r")
        one = outcome_of(outcome, style)
        expected.append(Expected(str(path), number, offset, raw, one))
        offset += len(text) + len(end) + (len(bom) if number == 1 else 0)
    return expected


def shuffled(seed: int, times: int = 1) -> list[tuple[bytes, Any]]:
    cases = CASES * times
    random.Random(seed).shuffle(cases)
    return cases


def error_bytes(paths: Iterable[str]) -> list[bytes]:
    return [line for path in paths for line in Path(path).read_bytes().split(b"\n")[:-1]]


def predicted_lines(run: modelbeam.Run) -> list[bytes]:
    return [line for path in run.shards for line in Path(path).read_bytes().split(b"\n")[:-1]]


def check_error(text: bytes, expected: Expected, model: str) -> None:
    """One error line in full: its place, its cause, and the original record to the byte."""
    error = orjson.loads(text)
    found = (error["source"], error["line"], error["offset"])
    assert found == expected[:3]
    assert error["model"] == model
    assert error["error"]
    if isinstance(expected.outcome, str):
        assert f"{error['stage']} {error['type']}" == expected.outcome
    if error["type"] == "RecordTooLongError":
        assert error["record_bytes"] - len(expected.raw) in (0, 1)  # with the \r of its end
        assert len(error["record"]) >= 500
        assert expected.raw.startswith(error["record"].encode())
    elif error["stage"] != "decode":
        assert text.endswith(b'"record":' + expected.raw.replace(b"\r", b" ") + b"}")
    elif "record" in error:
        assert error["record"].encode() == expected.raw
    else:
        assert base64.b64decode(error["record_base64"]) == expected.raw
        with pytest.raises(UnicodeDecodeError):
            expected.raw.decode()


def check_run(run: modelbeam.Run, expected: list[Expected], model: str) -> None:
    records = [one for one in expected if one.outcome != BLANK]
    bad = [one for one in records if isinstance(one.outcome, str)]
    good = [one for one in records if not isinstance(one.outcome, str)]
    assert (run.read, run.predicted, run.failed) == (len(records), len(good), len(bad))
    assert [orjson.loads(line)["y"] for line in predicted_lines(run)] == [g.outcome for g in good]
    errors = error_bytes(run.errors)
    assert len(errors) == len(bad)
    for text, one in zip(errors, bad, strict=True):
        check_error(text, one, model)


NAMES = {"Doubler": "doubler", "BatchDoubler": "batch_doubler", "TableDoubler": "table_doubler"}


def predict(
    style: str, inputs: list[Path], output: Path, *, workers: int = 1, **settings: Any
) -> modelbeam.Run:
    return modelbeam.predict(
        model=f"small_models:{style}" if style in STYLES else f"odd_models:{style}",
        input=[str(path) for path in inputs],
        output=str(output),
        workers=workers,
        **settings,
    )


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("output", ["out", "out.jsonl"])
def test_every_line_of_bad_input_has_its_outcome(tmp_path: Path, style: str, output: str) -> None:
    names = ["unix.jsonl", "windows.jsonl", "bom.json", "bad-first.ndjson", "empty.jsonl"]
    paths = [tmp_path / name for name in names]
    bad_first = [(b"nope", JSON), *CASES[:10]]
    expected = [
        *write_cases(paths[0], [*shuffled(1), CASES[0]], style),
        *write_cases(paths[1], shuffled(2), style, end=b"\r\n"),
        *write_cases(paths[2], CASES[:10], style, bom=BOM),
        *write_cases(paths[3], bad_first, style, end=b"\r\n", bom=BOM),
        *write_cases(paths[4], [], style),
    ]
    run = predict(
        style,
        paths,
        tmp_path / output,
        split_size="64",
        max_record_size=LONGEST,
        workers=2 if output == "out" else 1,
    )
    check_run(run, expected, NAMES[style])


def test_offsets_are_right_wherever_a_split_begins(tmp_path: Path) -> None:
    cases = [(b"1", NO_OBJECT), (b"{}", MISSING[1]), (b"", BLANK), (b'{"x":1}', 2.0)] * 10
    path = tmp_path / "short.jsonl"
    expected = write_cases(path, cases, "TableDoubler")
    run = predict("TableDoubler", [path], tmp_path / "out", split_size=1)
    check_run(run, expected, "table_doubler")


@pytest.mark.parametrize("style", STYLES)
def test_all_columns_are_kept_beside_the_predictions(tmp_path: Path, style: str) -> None:
    cases = [
        (text, outcome)
        for text, outcome in shuffled(3, times=2)
        if outcome_of(outcome, style) != BLANK
    ]
    clash = [(b'{"x": 1.5, "y": 0}', CLASH), (b'{"\\u0079": 0, "x": 1.5}', CLASH)]
    no_clash = [(b'{"x": 1.5, "z": "y", "t": {"y": 1}}', 3.0)]
    cases = [*clash, *cases, *no_clash, *clash]
    paths = [tmp_path / "unix.jsonl", tmp_path / "windows.jsonl"]
    expected = [
        *write_cases(paths[0], cases, style),
        *write_cases(paths[1], cases, style, end=b"\r\n"),
    ]
    run = predict(
        style, paths, tmp_path / "out", split_size="100", max_record_size=LONGEST, keep="all"
    )
    check_run(run, expected, NAMES[style])
    good = [one for one in expected if not isinstance(one.outcome, str)]
    for text, one in zip(predicted_lines(run), good, strict=True):
        kept = one.raw.strip()[:-1].rstrip()
        assert text.replace(b"\r", b" ").startswith(kept.replace(b"\r", b" ") + b",")


CLASH = "encode ColumnClashError"


@pytest.mark.parametrize("style", STYLES)
def test_the_kept_columns_are_those_that_were_named(tmp_path: Path, style: str) -> None:
    lines = [
        (b'{"x": 1.5, "id": "a\\"b", "deep": [1, {"x": 2}], "other": 0}', 3.0),
        (b'{"x": 1.5}', 3.0),
        (b'{"id": null, "x": 2.5}', 5.0),
        (b'{"id": 1, "x": -1.0}', NEGATIVE),
        (b'{"id": 1, "id": 2, "x": 3.5}', 7.0),
        (deep(1000), 3.0),
        (b"nope", JSON),
    ]
    path = tmp_path / "in.jsonl"
    expected = write_cases(path, lines, style)
    run = predict(style, [path], tmp_path / "out", keep=["id", "deep"])
    check_run(run, expected, NAMES[style])
    nested = b"[" * 999 + b"]" * 999
    assert [line.replace(b" ", b"") for line in predicted_lines(run)] == [
        b'{"id":"a\\"b","deep":[1,{"x":2}],"y":3.0}',
        b'{"y":3.0}',
        b'{"id":null,"y":5.0}',
        b'{"id":2,"y":7.0}',
        b'{"deep":' + nested + b',"y":3.0}',
    ]


def corrupt(chance: random.Random, content: bytes) -> bytes:
    """Change, insert, delete and move a few bytes."""
    data = bytearray(content)
    for _ in range(chance.randint(5, 40)):
        at = chance.randrange(len(data))
        new = chance.choice([chance.randrange(256), *b'\n\n\r\x00"\\{}[]:,. 0-e'])
        kind = chance.choice(["change", "change", "insert", "delete", "copy", "cut"])
        if kind == "change":
            data[at] = new
        elif kind == "insert":
            data.insert(at, new)
        elif kind == "delete":
            del data[at]
        elif kind == "copy":
            data[at:at] = data[at // 2 : at // 2 + chance.randint(1, 100)]
        else:
            del data[at : at + chance.randint(1, 100)]
    return bytes(data)


@pytest.mark.parametrize("style", STYLES)
def test_of_a_corrupted_file_every_line_is_predicted_or_explained_once(
    tmp_path: Path, style: str
) -> None:
    clean, expected = [], []
    for seed in range(8):
        chance = random.Random(seed)
        lines = [
            b'{"x":%d.5,"id":%d,"s":"\xc3\xa9"}' % (chance.randint(0, 99), n) for n in range(60)
        ]
        clean += lines
        content = corrupt(chance, b"\n".join(lines) + b"\n")
        cases = [(text, None if text.strip() else BLANK) for text in content.split(b"\n")]
        expected += write_cases(tmp_path / f"corrupted-{seed}.jsonl", cases, style)
    run = predict(
        style, [tmp_path / "*.jsonl"], tmp_path / "out", split_size="100", keep="all", workers=2
    )
    records = {one[:2]: one for one in expected if one.outcome is None}
    assert (run.read, run.failed) == (len(records), len(error_bytes(run.errors)))
    for text in error_bytes(run.errors):
        error = orjson.loads(text)
        one = records.pop((error["source"], error["line"]))  # at most once
        assert one.raw not in clean
        check_error(text, one, NAMES[style])
    assert run.predicted == len(records) > 200
    for text, one in zip(predicted_lines(run), records.values(), strict=True):
        record = orjson.loads(one.raw)
        assert orjson.loads(text) == {**record, "y": 2 * record["x"]}


def test_a_huge_line_is_one_error_and_a_large_record_is_predicted(tmp_path: Path) -> None:
    path = tmp_path / "huge.jsonl"
    with path.open("wb") as handle:
        handle.write(b'{"x": 1.0}\n{"x": 2.0, "s": "' + b"s" * (20 << 20) + b'"}\n')
        start = handle.tell()
        handle.write(b'{"x": 3.0, "s": "')
        for _ in range(100):
            handle.write(b"s" * (1 << 20))
        handle.write(b'"}\n{"x": 4.0}\n{"x": 5.0}\n')
        length = handle.tell() - start - len(b'\n{"x": 4.0}\n{"x": 5.0}\n')
    run = predict("Doubler", [path], tmp_path / "out")
    assert [orjson.loads(line)["y"] for line in predicted_lines(run)] == [2.0, 4.0, 8.0, 10.0]
    (error,) = read_lines(run.errors[0])
    assert (error["line"], error["offset"], error["record_bytes"]) == (3, start, length)
    assert (error["stage"], error["type"]) == ("decode", "RecordTooLongError")
    assert error["record"].startswith('{"x": 3.0, "s": "sss')


def test_bytes_of_a_huge_line_that_are_not_text_are_shown_as_base64(tmp_path: Path) -> None:
    path = tmp_path / "binary.jsonl"
    binary = bytes(n for n in range(256) if n != 10) * 40
    path.write_bytes(b'{"x": 1.0}\n' + binary + b'\n{"x": 2.0}\n')
    run = predict("Doubler", [path], tmp_path / "out", max_record_size=LONGEST)
    (error,) = read_lines(run.errors[0])
    assert binary.startswith(base64.b64decode(error["record_base64"]))


def test_hundreds_of_thousands_of_failures_are_all_explained(tmp_path: Path) -> None:
    counts = {"decode": 100_000, "validate": 100_000, "predict": 20_000}
    texts = {"decode": b"nope\n", "validate": b'{"x":"a"}\n', "predict": b'{"x":-1.0}\n'}
    paths = [tmp_path / f"{stage}.jsonl" for stage in counts]
    for path, (stage, count) in zip(paths, counts.items(), strict=True):
        path.write_bytes(b'{"x":1.0}\n' + texts[stage] * count)
    run = predict("TableDoubler", paths, tmp_path / "out")
    assert (run.predicted, run.failed) == (3, sum(counts.values()))
    assert {kind["stage"]: kind["count"] for kind in run.failures} == counts
    errors = [orjson.loads(line) for line in error_bytes(run.errors)]
    assert [(error["source"], error["line"], error["stage"]) for error in errors] == [
        (str(path), number + 2, stage)
        for path, (stage, count) in zip(paths, counts.items(), strict=True)
        for number in range(count)
    ]


def test_a_batch_model_survives_a_large_stretch_of_bad_records(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"x":1.0}\n' * 10_000 + b'{"x":-1.0}\n{"x":1}\n' * 10_000 + b'{"x":1.0}\n')
    run = predict("BatchDoubler", [path], tmp_path / "out.jsonl")
    assert (run.predicted, run.failed) == (10_001, 20_000)
    lines = [error["line"] for error in read_lines(run.errors[0])]
    assert lines == list(range(10_001, 30_001))


def test_inputs_without_a_record_are_no_success(tmp_path: Path) -> None:
    contents = {"a.jsonl": b"", "b.jsonl": b"\n\r\n \n", "c.jsonl": BOM, "d.jsonl.gz": b""}
    for name, content in contents.items():
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    inputs = [tmp_path / name for name in contents]
    with pytest.raises(NothingPredictedError, match=r"No record was found in the input .4 files"):
        predict("Doubler", inputs, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    assert json.loads((tmp_path / "out.run.json").read_text())["status"] == "failed"


def test_a_truncated_file_fails_the_job_which_goes_on_once_it_is_mended(tmp_path: Path) -> None:
    good, damaged = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"
    good.write_bytes(b'{"x": 1.0}\n' * 1000)
    packed = gzip.compress(b"".join(b'{"x": %d.0}\n' % n for n in range(1000)))
    damaged.write_bytes(packed[: len(packed) // 2])
    output = tmp_path / "out"
    with pytest.raises(InputReadError) as raised:
        predict("Doubler", [good, damaged], output)
    assert str(damaged) in str(raised.value)
    assert list(output.glob("predictions-*")) == []
    damaged.write_bytes(packed)
    run = predict("Doubler", [good, damaged], output, resume=True)
    assert (run.read, run.predicted) == (2000, 2000)
    predicted = [orjson.loads(line)["y"] for line in predicted_lines(run)]
    assert predicted == [2.0] * 1000 + [2.0 * n for n in range(1000)]


def test_models_that_exit_and_return_nonsense_fail_their_records_only(tmp_path: Path) -> None:
    whats = ["fine", "exit", "surrogate", "mute", "fine", "deep", "long", "memory", "panic"] * 20
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(b'{"what":"%s"}\n' % what.encode() for what in whats))
    run = predict("Raises", [path], tmp_path / "out", split_size="100")
    assert (run.predicted, run.failed) == (whats.count("fine"), len(whats) - whats.count("fine"))
    found = [(error["line"], error["record"]["what"]) for error in read_errors(run)]
    assert found == [(n, what) for n, what in enumerate(whats, 1) if what != "fine"]


def read_errors(run: modelbeam.Run) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in error_bytes(run.errors)]
