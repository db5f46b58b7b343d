"""What runs say of themselves, held against the schema."""

from __future__ import annotations

from typing import Any

import jsonschema

from modelbeam.report.schema import run_schema


def check_described(kind: str, said: dict[str, Any]) -> None:
    """Hold a description against the schema; and every key of it must be documented."""
    whole = run_schema()
    jsonschema.Draft202012Validator.check_schema(whole)
    jsonschema.validate(said, whole)
    jsonschema.validate(said, {"$ref": f"#/$defs/{kind}", "$defs": whole["$defs"]})
    assert said["schema"] == 1
    undocumented = said.keys() - whole["$defs"][kind]["properties"].keys()
    assert undocumented == set(), "describe these keys in report/schema.py"
    for failure in said.get("failures", ()):
        assert failure.keys() <= whole["$defs"]["failure"]["properties"].keys()
    for model in said["models"] if kind == "run" else ():
        assert model.keys() <= whole["$defs"]["model"]["properties"].keys()
