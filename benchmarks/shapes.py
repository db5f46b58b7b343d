"""Data of many shapes, and who reads it: ``shapes.py wide 300000 FILE`` writes one of them.

Each shape has the peer that a user would write by hand for it: a Polars script, or a bare loop for
models of one record at a time.
"""

from __future__ import annotations

import gzip
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

FIELDS = 83
"""Of a wide record, four of which the model uses; some 1.4 KB."""
WORDS = 120
"""Of a text."""
SEED = 150
PLAIN = ("sepal_length", "sepal_width", "petal_length", "petal_width")
FILES = 2000


@dataclass(frozen=True)
class Shape:
    """A shape of data.

    Attributes:
        data: what writes it.
        rows: how many records, unless told otherwise.
        model: of ``iris_lr`` or ``shaped``, for modelbeam.
        peer: the script in ``peers/`` and its further arguments.
        flags: modelbeam's.
        suffix: of the file.
    """

    data: str
    rows: int
    model: str = "iris_lr:IrisTable"
    peer: tuple[str, ...] = ("polars_shape.py", "narrow")
    flags: tuple[str, ...] = ()
    suffix: str = ".jsonl"


SHAPES = {
    "narrow": Shape("narrow", 5_000_000),
    "wide": Shape("wide", 300_000, peer=("polars_shape.py", "wide")),
    "wide, id kept": Shape(
        "wide", 300_000, peer=("polars_shape.py", "wide-id"), flags=("--keep=id",)
    ),
    "wide, all kept": Shape(
        "wide", 300_000, peer=("polars_shape.py", "wide-all"), flags=("--keep=all",)
    ),
    "nested": Shape("nested", 1_000_000, "shaped:Nested", ("polars_shape.py", "nested")),
    "long texts": Shape("texts", 200_000, "shaped:Texts", ("polars_shape.py", "texts")),
    "gzip": Shape("narrow", 2_000_000, suffix=".jsonl.gz"),
    "zstd": Shape("narrow", 2_000_000, suffix=".jsonl.zst"),
    "many files": Shape("narrow", 2_000_000, suffix=""),
    "one dict at a time": Shape(
        "narrow", 3_000_000, "iris_lr:NearlyNothing", ("bare_loop.py", "iris_lr:NearlyNothing")
    ),
    "one at a time, pydantic": Shape("narrow", 3_000_000, "shaped:Checked", ("pydantic_loop.py",)),
}


def narrow(rows: int) -> Iterator[bytes]:
    """Four floats."""
    draw = random.Random(SEED)
    for _ in range(rows):
        yield orjson.dumps({name: draw.randrange(1, 80) / 10 for name in PLAIN})


def wide(rows: int) -> Iterator[bytes]:
    """An id, the four floats among numbers, words, flags and nulls."""
    draw = random.Random(SEED)
    others = FIELDS - len(PLAIN) - 1
    for row in range(rows):
        record: dict[str, object] = {"id": f"id-{row:09d}"}
        for n in range(others):
            kinds = (
                draw.random(),
                f"word {draw.randrange(1000)}",
                n % 2 == 0,
                draw.randrange(9999),
            )
            record[f"field_{n:02d}"] = None if draw.random() < 0.05 else kinds[n % 4]
            if n % 20 == 0:
                record[PLAIN[n // 20]] = draw.randrange(1, 80) / 10
        yield orjson.dumps(record)


def nested(rows: int) -> Iterator[bytes]:
    """The four floats, two levels down."""
    draw = random.Random(SEED)
    for _ in range(rows):
        leaves = {
            leaf: {side: draw.randrange(1, 80) / 10 for side in ("length", "width")}
            for leaf in ("sepal", "petal")
        }
        yield orjson.dumps({"flower": leaves})


def texts(rows: int) -> Iterator[bytes]:
    """Texts of 120 words."""
    draw = random.Random(SEED)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(draw.choices(letters, k=draw.randrange(2, 10))) for _ in range(20_000)]
    for _ in range(rows):
        yield orjson.dumps({"text": " ".join(draw.choices(words, k=WORDS))})


DATA: dict[str, Callable[[int], Iterator[bytes]]] = {
    "narrow": narrow,
    "wide": wide,
    "nested": nested,
    "texts": texts,
}


def write(data: str, rows: int, path: Path) -> None:
    """Write so many records; a path without a suffix is a directory of many files."""
    lines = DATA[data](rows)
    if not path.suffix:
        path.mkdir()
        share = -(-rows // FILES)
        for number in range(FILES):
            few = (line for _, line in zip(range(share), lines, strict=False))
            (path / f"{number:05d}.jsonl").write_bytes(b"".join(line + b"\n" for line in few))
        return
    content = path.with_suffix("") if path.suffix in {".gz", ".zst"} else path
    with content.open("wb") as file:
        file.writelines(line + b"\n" for line in lines)
    if path.suffix == ".gz":
        with content.open("rb") as plain, gzip.open(path, "wb", compresslevel=6) as packed:
            while block := plain.read(1 << 20):
                packed.write(block)
    elif path.suffix == ".zst":
        import pyarrow as pa

        with content.open("rb") as plain, pa.CompressedOutputStream(str(path), "zstd") as packed:
            while block := plain.read(1 << 20):
                packed.write(block)
    if content != path:
        content.unlink()


def source(shape: Shape, rows: int, work: Path) -> Path:
    """The data of a shape, written by a process of its own when there is none yet."""
    path = work / f"{shape.data}-{rows}{shape.suffix}"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"part-{path.name}")
        subprocess.run([sys.executable, __file__, shape.data, str(rows), str(part)], check=True)
        part.rename(path)
    return path


if __name__ == "__main__":
    write(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
