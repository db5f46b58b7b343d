"""What a reader of a page has in the directory before the first of its blocks is run."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pages import ROOT

CHURN = """\
from schema import Or, Schema


class Churn:
    display_name = "Churn"
    qualified_name = "churn"
    description = "Tells whether a customer will leave."
    major_version = 1
    minor_version = 0
    input_schema = Schema({"age": int, "spend": Or(int, float)}, ignore_extra_keys=True)
    output_schema = Schema({"churns": bool})

    def predict(self, data):
        return {"churns": data["spend"] < 10}
"""


def stock(page: Path, place: Path) -> None:
    """Fill a directory with what a page takes for granted."""
    shutil.copytree(ROOT / "data", place / "data", ignore=shutil.ignore_patterns("output*"))
    (place / "examples").symlink_to(ROOT / "examples")
    prepare = _PAGES.get(str(page.relative_to(ROOT)))
    if prepare is not None:
        prepare(place)


def _flowers(place: Path) -> None:
    """A classifier that knows its columns, and a file of flowers."""
    import joblib
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    flowers = pd.read_json(place / "data" / "input.json", lines=True)
    species = ["setosa", "versicolor", "virginica"] * 5
    joblib.dump(LogisticRegression(max_iter=500).fit(flowers, species), place / "iris.joblib")
    flowers.to_csv(place / "flowers.csv", index=False)
    shutil.copy(place / "data" / "input.json", place / "flowers.jsonl")


def _failures(place: Path) -> None:
    """A run with failures."""
    error = {"line": 2, "model": "m", "stage": "predict", "type": "E", "error": "x"}
    good = '{"x": 1}\n{"x": -1}\n'
    (place / "data.jsonl").write_text(good)
    (place / "data.jsonl.gz").write_bytes(gzip.compress(good.encode()))
    (place / "out").mkdir()
    (place / "out" / "errors-00000-of-00001.jsonl").write_text(
        "".join(
            json.dumps({"source": source, **error, "record": {"x": -1}}) + "\n"
            for source in ("data.jsonl", "data.jsonl.gz")
        )
    )
    model = CHURN.replace("Churn:", "Model:").replace(
        '"age": int, "spend": Or(int, float)', '"x": int'
    )
    (place / "my_model.py").write_text(model.replace('data["spend"]', 'data["x"]'))


def _two_models(place: Path) -> None:
    """A class and an ONNX file that predict the same, and others for two languages."""
    (place / "churn").mkdir()
    (place / "churn" / "__init__.py").touch()
    (place / "churn" / "model.py").write_text(CHURN)
    (place / "models").mkdir()
    _onnx(place / "models" / "churn.onnx", "spend", "churns")
    for language in ("de", "fr"):
        _onnx(place / "models" / f"{language}.onnx", "length", "short")
    shutil.rmtree(place / "data")
    (place / "data").mkdir()
    (place / "data" / "a.csv").write_text("id,age,spend,churned\n1,30,5,true\n2,40,50,false\n")
    (place / "texts.jsonl").write_text(
        '{"language": "de", "length": 3}\n{"language": "fr", "length": 30}\n'
    )


def _onnx(path: Path, column: str, output: str) -> None:
    """A graph that tells whether a column is under ten."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("Less", [column, "ten"], [output])],
        "less",
        [helper.make_tensor_value_info(column, TensorProto.FLOAT, [None, 1])],
        [helper.make_tensor_value_info(output, TensorProto.BOOL, [None, 1])],
        [numpy_helper.from_array(np.float32([10]), "ten")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


def _small(place: Path) -> None:
    """A classifier of two columns."""
    import joblib
    import pandas as pd
    from sklearn.tree import DecisionTreeClassifier

    columns = pd.DataFrame({"sepal length": [5.1, 6.0], "petal length": [1.4, 4.5]})
    fitted = DecisionTreeClassifier().fit(columns, ["setosa", "versicolor"])
    joblib.dump(fitted, place / "small.joblib")


def _incoming(place: Path) -> None:
    """A file that came some time ago."""
    (place / "incoming").mkdir()
    file = place / "incoming" / "2026-11-27.jsonl"
    shutil.copy(place / "data" / "input.json", file)
    os.utime(file, (1e9, 1e9))


def _limits(place: Path) -> None:
    (place / "limits.json").write_text('{"spend": 10}')


def _numbers(place: Path) -> None:
    """Some records."""
    (place / "in.jsonl").write_text('{"x": 1.0}\n{"x": 2.5}\n')


def _run(place: Path) -> None:
    """What a run says of itself."""
    counts = {"read": 15, "predicted": 15, "failed": 0}
    (place / "out").mkdir()
    (place / "out" / "run.json").write_text(json.dumps({"status": "succeeded", "counts": counts}))


_PAGES: dict[str, Callable[[Path], Any]] = {
    "README.md": _flowers,
    "docs/bad-input.md": _failures,
    "docs/models.md": _limits,
    "docs/moving.md": _flowers,
    "docs/nightly.md": _incoming,
    "docs/pipeline.md": _small,
    "docs/python.md": _numbers,
    "docs/report.md": _run,
    "docs/several.md": _two_models,
}
