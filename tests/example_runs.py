"""Runs to look at: run.json and profile.json of five kinds, as collecting makes them, from a seed.

``python tests/example_runs.py DIRECTORY`` draws them all there.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from modelbeam.report.page import draw

SPECIES = ["setosa", "versicolor", "virginica"]
PLOTS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

Json = dict[str, Any]


def histogram(values: list[float], bins: int = 40) -> Json:
    """Counts in even bins."""
    least, most = min(values), max(values)
    width = (most - least) / bins or 1.0
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int((value - least) / width))] += 1
    return {"edges": [least + i * width for i in range(bins + 1)], "counts": counts}


def numbers(values: list[float]) -> Json:
    """What a profile says of numbers."""
    ordered = sorted(values)
    mean = sum(values) / len(values)
    return {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": mean,
        "std": (sum((x - mean) ** 2 for x in values) / len(values)) ** 0.5,
        "zeros": sum(x == 0 for x in values),
        "quantiles": [[q, ordered[round(q * (len(ordered) - 1))]] for q in PLOTS],
        "histogram": histogram(values),
    }


def of_numbers(name: str, values: list[float], scale: int = 1, **more: Any) -> Json:
    """A column of numbers, each of which stands for ``scale`` records."""
    found = numbers(values)
    found["histogram"]["counts"] = [n * scale for n in found["histogram"]["counts"]]
    return {
        "name": name,
        "type": "double",
        "count": len(values) * scale,
        "missing": 0,
        "invalid": 0,
        "distinct": len(set(values)) * scale // 3,
        "distinct_exact": False,
        "numbers": found,
        "values": None,
        "lengths": None,
        **more,
    }


def of_values(name: str, counts: dict[str, int], others: int = 0, **more: Any) -> Json:
    """A column of texts or classes."""
    top = [{"value": value, "count": n} for value, n in Counter(counts).most_common(20)]
    return {
        "name": name,
        "type": "string",
        "count": sum(counts.values()) + others,
        "missing": 0,
        "invalid": 0,
        "distinct": len(counts) + others // 40,
        "distinct_exact": not others,
        "numbers": None,
        "values": {"top": top, "others": others},
        "lengths": None,
        **more,
    }


def run_of(read: int, failed: int = 0, name: str = "iris", **more: Any) -> Json:
    """What run.json says."""
    return {
        "modelbeam": "0.1.0",
        "status": "succeeded",
        "models": [
            {
                "target": f"{name}_model.predict:Model",
                "name": name,
                "style": "batch",
                "version": "1.4.2",
                "description": "Predicts from a few columns.",
                "input_schema": {"type": "object", "properties": {"a": {"type": "number"}}},
                "output_schema": {"type": "object", "properties": {"b": {"type": "string"}}},
                "distribution": f"{name}_model 1.4.2",
                "fingerprint": "0d080a5146f6f4b49b077538",
            }
        ],
        "output": "out",
        "files": [
            *(f"out/errors-{i:05d}-of-00013.jsonl" for i in range(0, 13 if failed else 0, 4)),
            *(f"out/predictions-{i:05d}-of-00013.jsonl" for i in range(13)),
        ],
        "counts": {"read": read, "predicted": read - failed, "failed": failed},
        "failures": [],
        "notes": [],
        "recovered": 0,
        "crashes": [],
        "splits": 13,
        "splits_resumed": 0,
        "bytes_read": read * 90,
        "started": "2026-11-28T03:17:41Z",
        "finished": "2026-11-28T03:18:29Z",
        "seconds": 48.2,
        "records_per_second": round(read / 48.2),
        "runner": "DirectRunner",
        "workers": "4 workers: processes",
        "software": {"python": "3.11.7", "apache-beam": "2.77.0", "numpy": "2.4.6"},
        "job": {
            "settings": {"model": f"{name}_model.predict:Model", "--batch-size": "auto"},
            "split_size": 1 << 23,
            "inputs": [
                [f"data/part-{i:02d}.jsonl", read * 7, 1795835697623595443] for i in range(13)
            ],
        },
        "request": {
            "models": [{"target": f"{name}_model.predict:Model"}],
            "inputs": ["data/*.jsonl"],
        },
        **more,
    }


def time_of(read: int, seconds: float, workers: int, splits: int, seed: int = 1) -> Json:
    """Where the time went, with one straggler among the splits."""
    chance = random.Random(seed)
    free = [seconds * 0.06] * workers
    pieces: list[Json] = []
    each = (seconds * 0.84) * workers / splits
    for i in range(splits):
        worker = min(range(workers), key=free.__getitem__)
        took = each * chance.uniform(0.75, 1.2) * (3.4 if i == splits - workers - 1 else 1)
        pieces.append(
            {
                "split": i,
                "worker": f"worker {worker + 1}",
                "start": free[worker],
                "end": free[worker] + took,
                "read": read // splits,
                "failed": 0,
            }
        )
        free[worker] += took
    end = max(free)
    points = []
    for i in range(120):
        at = (i + 0.5) * end / 120
        busy = sum(one["start"] <= at < one["end"] for one in pieces)
        points.append([at, round(read / 105 * busy / workers * chance.uniform(0.85, 1.1))])
    shares = {
        "read": 4,
        "decode": 22,
        "validate": 9,
        "predict": 48,
        "encode": 8,
        "write": 3,
        "waiting": 6,
    }
    return {
        "wall": seconds,
        "start_up": seconds * 0.06,
        "stages": {key: workers * end * part / 100 for key, part in shares.items()},
        "throughput": points,
        "batches": {
            "count": read // 1900 + 1,
            "size": {"p5": 640, "p50": 2048, "p95": 2048, "max": 2048},
            "seconds": {"p50": 0.0121, "p95": 0.031, "p99": 0.084, "max": 0.61},
        },
        "splits": pieces,
        "workers": workers,
    }


def small() -> tuple[Json, Json]:
    """A run of 150 records where all went well."""
    chance = random.Random(2)
    sizes = {
        "sepal_length": (5.8, 0.8),
        "sepal_width": (3.05, 0.43),
        "petal_length": (3.76, 1.7),
        "petal_width": (1.2, 0.75),
    }
    columns = [
        of_numbers(
            name,
            [round(max(0.1, chance.gauss(*shape)), 1) for _ in range(150)],
            distinct=35,
            distinct_exact=True,
        )
        for name, shape in sizes.items()
    ]
    scores = [round(1 - 0.6 * chance.betavariate(0.6, 4), 3) for _ in range(150)]
    run = run_of(150, seconds=2.36, records_per_second=64, splits=1, workers="2 workers: threads")
    run["files"] = ["out/predictions-00000-of-00001.jsonl"]
    run["job"]["inputs"] = [["data/input.json", 12450, 1795835697623595443]]
    profile = {
        "version": 1,
        "inputs": columns,
        "predictions": [
            {
                "model": "iris",
                "columns": [
                    of_values("species", {"setosa": 50, "versicolor": 54, "virginica": 46}),
                    of_numbers("probability", scores, distinct=88, distinct_exact=True),
                ],
            }
        ],
        "odd": [
            {
                "model": "iris",
                "why": "least certain",
                "column": "probability",
                "value": 0.471 + i / 90,
                "source": "data/input.json",
                "line": 17 + 29 * i,
                "offset": 1301 + 2290 * i,
                "record": {
                    "sepal_length": 6.0 + i / 10,
                    "sepal_width": 2.7,
                    "petal_length": 5.1,
                    "petal_width": 1.6,
                },
            }
            for i in range(3)
        ],
        "failures": [],
        "time": time_of(150, 2.36, 1, 1),
        "baseline": None,
    }
    profile["time"]["batches"] = {
        "count": 2,
        "size": {"p5": 22, "p50": 128, "p95": 128, "max": 128},
        "seconds": {"p50": 0.0007, "p95": 0.0009, "max": 0.0009},
    }
    return run, profile


def houses(chance: random.Random, shifted: bool = False) -> list[Json]:
    """The columns of houses; ``shifted`` as a later month has them."""
    count, scale = 4000, 310
    move = 1.0 if shifted else 0.0
    areas = [round(chance.lognormvariate(4.6 + 0.02 * move, 0.42)) for _ in range(count)]
    ages = [float(round(abs(chance.gauss(38 - 4 * move, 24)))) for _ in range(count)]
    incomes = [round(chance.lognormvariate(10.4 + 0.55 * move, 0.5)) for _ in range(count)]
    rooms = [float(max(1, round(chance.gauss(4, 1.4)))) for _ in range(count)]
    distances = [round(chance.expovariate(1 / 11), 2) for _ in range(count)]
    energy = {"A": 70, "B": 210, "C": 390, "D": 330, "E": 160, "F": 60, "G": 20}
    if shifted:
        energy = {"A": 320, "B": 330, "C": 290, "D": 190, "E": 80, "F": 25, "G": 5}
    towns = {
        "Łódź": 212_000,
        "Zürich": 188_400,
        "القاهرة": 141_000,
        "กรุงเทพมหานคร": 96_100,
        "Saint-Étienne": 41_200,
    }
    return [
        of_numbers("living_area", [float(x) for x in areas], scale),
        of_numbers(
            "income",
            [float(x) for x in incomes],
            scale,
            missing=round(scale * count * (0.071 if shifted else 0.012)),
        ),
        of_numbers("age", ages, scale),
        of_numbers("rooms", rooms, scale, type="integer", distinct=10, distinct_exact=True),
        of_numbers("distance_to_centre", distances, scale, invalid=14 if shifted else 0),
        of_values("energy_class", {key: n * 1000 for key, n in energy.items()}),
        of_values("town", towns, 561_300, distinct=8123),
    ]


def drift() -> tuple[Json, Json]:
    """A run whose inputs are not what they were a month ago."""
    now, was = houses(random.Random(5), shifted=True), houses(random.Random(4))
    chance = random.Random(8)
    prices = [chance.lognormvariate(12.55, 0.45) for _ in range(4000)]
    before = [chance.lognormvariate(12.3, 0.4) for _ in range(4000)]
    out_now, out_was = of_numbers("price", prices, 310), of_numbers("price", before, 310)
    bands = {"low": 182_000, "middle": 602_000, "high": 456_000}
    bands_was = {"low": 341_000, "middle": 681_000, "high": 218_000}
    figures = {
        "living_area": 0.004,
        "income": 0.612,
        "age": 0.041,
        "rooms": 0.0007,
        "distance_to_centre": 0.0011,
        "energy_class": 0.388,
        "town": 0.012,
    }

    def entry(where: str, name: str, psi: float, old: Json) -> Json:
        change = "large" if psi > 0.25 else "some" if psi > 0.1 else "none"
        return {
            "where": where,
            "name": name,
            "psi": psi,
            "js": (psi / 8) ** 0.5,
            "change": change,
            "note": None,
            "was": old,
        }

    entries = [entry("inputs", one["name"], figures[one["name"]], one) for one in was]
    entries += [
        entry("houses", "price", 0.344, out_was),
        entry("houses", "band", 0.197, of_values("band", bands_was)),
    ]
    run = run_of(1_240_000, 3_180, "houses")
    profile = {
        "version": 1,
        "inputs": now,
        "predictions": [{"model": "houses", "columns": [out_now, of_values("band", bands)]}],
        "odd": [
            {
                "model": "houses",
                "why": why,
                "column": "price",
                "value": value,
                "source": f"data/part-{i:02d}.jsonl",
                "line": 1204 * i + 7,
                "offset": 88211 * i,
                "record": {
                    "living_area": 31 + 300 * i,
                    "income": 20_410 * (i + 1),
                    "town": "Zürich",
                },
            }
            for i, (why, value) in enumerate(
                [("highest", 3_904_112.5), ("highest", 3_120_000.0), ("lowest", 41_280.0)]
            )
        ],
        "failures": [
            failure(
                "validate",
                "ValidationError",
                "income: Input should be greater than …",
                3_180,
                "houses/model.py:28 in validate",
                3,
            )
        ],
        "time": time_of(1_240_000, 48.2, 4, 52),
        "baseline": {
            "path": "out-october",
            "run": {
                "id": "a1",
                "finished": "2026-10-28T03:16:02Z",
                "counts": {"read": 1_198_400, "predicted": 1_198_196, "failed": 204},
            },
            "columns": entries,
            "schema": [{"where": "inputs", "name": "rooms", "was": "double", "is": "integer"}],
            "failure_rate": {"was": 204 / 1_198_400, "is": 3_180 / 1_240_000},
        },
    }
    return run, profile


def failure(
    stage: str,
    type_: str,
    message: str,
    count: int,
    frame: str | None,
    seed: int,
    model: str = "houses",
) -> Json:
    """A kind of failure that gathers in one part of the input."""
    chance = random.Random(seed)
    middle = chance.randrange(50)
    along = [0] * 50
    for _ in range(count):
        along[min(49, max(0, round(chance.gauss(middle, 3 + 4 * (seed % 3)))))] += 1
    return {
        "model": model,
        "stage": stage,
        "type": type_,
        "message": message,
        "count": count,
        "frame": frame,
        "along": along,
        "examples": [
            {
                "source": f"data/part-{(middle + i) % 13:02d}.jsonl",
                "line": 4107 + 311 * i,
                "offset": 290_113 + 31_007 * i,
                "error": message.replace("…", str(chance.randrange(900))),
                "record": {
                    "living_area": 74 + i,
                    "income": None if i % 2 else -1,
                    "town": "Łódź",
                    "energy_class": "C",
                },
            }
            for i in range(min(5, count))
        ],
    }


def failing() -> tuple[Json, Json]:
    """A run in which many records failed, for several reasons."""
    kinds = [
        failure(
            "predict",
            "ValueError",
            "could not convert string to float: …",
            41_207,
            "houses/model.py:61 in predict",
            6,
        ),
        failure(
            "validate",
            "ValidationError",
            "… validation error for House income Input should be greater than … [type=…]",
            8_310,
            "houses/model.py:28 in validate",
            3,
        ),
        failure("decode", "JSONDecodeError", "unexpected end of data (column …)", 212, None, 5),
        failure(
            "predict",
            "TimeoutError",
            "the record took longer than --record-timeout … s",
            3,
            "houses/geo.py:17 in lookup",
            4,
        ),
    ]
    failed = sum(one["count"] for one in kinds)
    run = run_of(
        1_240_000,
        failed,
        "houses",
        notes=["data/readme.txt is no data that can be read; it was left out"],
        recovered=4,
        crashes=[
            {
                "ending": "was killed (SIGKILL), perhaps for its memory",
                "peak_memory": 3 << 30,
                "places": ["data/part-07.jsonl"],
                "records": 1,
            }
        ],
    )
    columns = houses(random.Random(4))
    chance = random.Random(8)
    out = of_numbers("price", [chance.lognormvariate(12.3, 0.4) for _ in range(4000)], 297)
    time = time_of(1_240_000, 48.2, 4, 52)
    for piece in time["splits"][24:30]:
        piece["failed"] = 7_000
    profile = {
        "version": 1,
        "inputs": columns,
        "failures": kinds,
        "odd": [],
        "time": time,
        "predictions": [{"model": "houses", "columns": [out]}],
        "baseline": None,
    }
    return run, profile


def compared() -> tuple[Json, Json]:
    """Two models over the same records."""
    table = [[49_820, 180, 0], [402, 46_911, 2_687], [0, 1_204, 48_796]]
    names = [f'"{name}"' for name in SPECIES]
    pairs = [
        {"first": one, "second": other, "count": table[i][j]}
        for i, one in enumerate(names)
        for j, other in enumerate(names)
        if table[i][j]
    ]
    equal = sum(table[i][i] for i in range(3))
    run = run_of(150_012, 0, "old", seconds=21.4, records_per_second=7010)
    run["models"].append(
        {
            **run["models"][0],
            "name": "new",
            "version": "2.0.0",
            "target": "iris_model.new:Model",
            "fingerprint": "77ab12c09f1e",
        }
    )
    run["counts"]["models"] = {
        "old": {"read": 150_012, "predicted": 150_000, "failed": 12},
        "new": {"read": 150_012, "predicted": 150_012, "failed": 0},
    }
    run["comparison"] = {
        "models": ["old", "new"],
        "compared": 150_000,
        "predicted_by_one_only": 12,
        "agreement": equal / 150_000,
        "columns": {
            "species": {"compared": 150_000, "agreement": equal / 150_000, "confusion": pairs},
            "probability": {
                "compared": 150_000,
                "agreement": 0.012,
                "differences": {
                    "count": 150_000,
                    "infinite": 0,
                    "mean": 0.0121,
                    "mean_absolute": 0.0313,
                    "root_mean_square": 0.0562,
                    "largest": 0.6124,
                    "quantiles": {
                        "0": -0.6124,
                        "0.05": -0.041,
                        "0.25": -0.008,
                        "0.5": 0.006,
                        "0.75": 0.031,
                        "0.95": 0.088,
                        "1": 0.402,
                    },
                },
            },
        },
        "columns_of_one_only": {"new": ["explanation"]},
        "label": {
            "column": "species",
            "without": 0,
            "old": {"predicted_column": "species", "labelled": 150_000, "accuracy": 0.9612},
            "new": {"predicted_column": "species", "labelled": 150_012, "accuracy": 0.9744},
        },
        "read": 150_012,
        "failed": {"old": 12, "new": 0},
        "seconds": 21.4,
        "output": "out/differences.jsonl",
        "largest": [
            {
                "difference": 1.61 - i / 7,
                "old": {"species": "versicolor", "probability": 0.93 - i / 30},
                "new": {"species": "virginica", "probability": 0.51 + i / 40},
                "record": {
                    "sepal_length": 6.0 + i / 10,
                    "sepal_width": 2.7,
                    "petal_length": 4.9,
                    "petal_width": 1.7,
                },
            }
            for i in range(8)
        ],
    }
    run["output"] = "out"
    return run, {"version": 1, "time": time_of(150_012, 21.4, 2, 12)}


def streaming() -> tuple[Json, Json]:
    """A run from topic to topic that goes on."""
    chance = random.Random(11)
    points: list[Json] = []
    lag = 0.0
    for i in range(180):
        arriving = 41_000 + 9_000 * ((i // 30) % 2) + chance.gauss(0, 1500)
        able = 9_000.0 if 90 <= i < 104 else 52_000 + chance.gauss(0, 1500)
        done = min(able, arriving + lag)
        lag = max(0.0, lag + arriving - done)
        points.append(
            {
                "t": 10.0 * i,
                "read": round(10 * done),
                "failed": chance.randrange(12),
                "lag": round(lag),
                "p50": 18 + lag / 3000 + chance.random() * 3,
                "p99": 55 + lag / 900 + chance.random() * 21,
            }
        )
    read = sum(one["read"] for one in points)
    failed = sum(one["failed"] for one in points)
    run = {
        "modelbeam": "0.1.0",
        "status": "running",
        "end": None,
        "model": {"name": "fraud", "target": "fraud.model:Fraud", "version": "3.1.0"},
        "input": "kafka://broker:9092/payments",
        "output": "kafka://broker:9092/scores",
        "errors": "kafka://broker:9092/payments-errors",
        "group": "modelbeam-fraud-scores",
        "delivery": "exactly-once",
        "lanes": 4,
        "counts": {"read": read, "predicted": read - failed, "failed": failed},
        "failures": [
            {
                "stage": "validate",
                "type": "ValidationError",
                "count": failed,
                "message": "amount: Input should be greater than …",
                "source": "payments",
                "partition": 3,
                "offset": 90_112,
                "error": "amount: Input should be greater than 0",
                "where": "fraud/model.py:40 in validate",
                "traceback": "",
            }
        ],
        "latency_ms": {"p50": 19.4, "p99": 71.2},
        "lost": [],
        "notes": [],
        "crashes": [],
        "seconds": 1800.0,
        "started": "2026-11-28T03:17:41Z",
    }
    partitions = [
        {
            "topic": "payments",
            "partition": i,
            "position": 90_000_000 + 7_001 * i,
            "end": 90_000_000 + 7_001 * i + lag_of,
            "lag": lag_of,
        }
        for i, lag_of in enumerate([12, 0, 4_310, 7, 0, 88, 3, 0])
    ]
    return run, {
        "version": 1,
        "stream": {"running": True, "points": points, "partitions": partitions},
    }


EXAMPLES = {
    "small": small,
    "failing": failing,
    "drift": drift,
    "compare": compared,
    "streaming": streaming,
}
"""Five kinds of runs by name."""


def main(directory: str) -> None:
    """Draw all of them."""
    for name, example in EXAMPLES.items():
        Path(directory, f"{name}.html").write_text(draw(*example()), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
