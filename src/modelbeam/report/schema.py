"""The JSON Schema of what describes a run: ``run.json``, and what ``--json`` prints.

The one definition: ``modelbeam runs --schema`` prints it, docs/run.schema.json holds it, and the
tests hold it against runs of every kind. Keys may be added without a new version; one that is
removed, renamed or means something else makes a new version.
"""

from __future__ import annotations

from typing import Any

from modelbeam._version import RUN_SCHEMA

Schema = dict[str, Any]


def _text(said: str, **more: Any) -> Schema:
    return {"type": "string", "description": said, **more}


def _number(said: str, **more: Any) -> Schema:
    return {"type": "number", "description": said, **more}


def _count(said: str) -> Schema:
    return {"type": "integer", "minimum": 0, "description": said}


def _list(of: Schema, said: str) -> Schema:
    return {"type": "array", "items": of, "description": said}


def _null_or(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _of(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _object(said: str, properties: dict[str, Schema], optional: tuple[str, ...] = ()) -> Schema:
    """An object that has all of its properties but the optional ones, and perhaps others."""
    return {
        "type": "object",
        "description": said,
        "properties": properties,
        "required": [name for name in properties if name not in optional],
    }


_STAMP = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"}
_VERSION = {"const": RUN_SCHEMA, "description": "The version of this schema."}
_SECONDS = _number("From start to finish.", minimum=0)
_NOTES = _list({"type": "string"}, "What a person should know, a sentence each.")
_ENDED = {
    "enum": ["succeeded", "failed"],
    "description": "failed: not one record was predicted, or an input could not be read.",
}

_COUNTS = _object(
    "Records: read is predicted plus failed.",
    {
        "read": _count("Records of the input."),
        "predicted": _count("Records with a prediction."),
        "failed": _count("Records with an error line instead."),
        "models": {
            "type": "object",
            "description": "The same for each of several models, by its name.",
            "additionalProperties": _of("tally"),
        },
    },
    optional=("models",),
)

_TALLY = _object(
    "Records that one model was given.",
    {name: _count("Records.") for name in ("read", "predicted", "failed")},
)

_MODEL = _object(
    "What a model says of itself.",
    {
        "target": _text("As it was given: module:Class, a path, a URL."),
        "name": _text("What error lines and the summary call it."),
        "style": {"enum": ["record", "batch", "table"], "description": "What one call takes."},
        "qualified_name": _text("The model's own unambiguous name."),
        "display_name": _text("A name for people."),
        "version": _text("The model's version; unknown if it has none."),
        "description": _text("A sentence or more."),
        "interface": _text("What kind of model it is."),
        "input_schema": _null_or({"type": "object", "description": "JSON Schema of a record."}),
        "output_schema": _null_or(
            {"type": "object", "description": "JSON Schema of a prediction."}
        ),
        "distribution": _null_or(_text("Name and version of the installed package.")),
        "fingerprint": _null_or(_text("A digest of its file, or of its code.")),
        "batch_size": _count(
            "The most records of a call; absent of a model that takes one at a time."
        ),
        "halved": _count("How many calls were cut in halves since memory ran out."),
    },
    optional=("batch_size", "halved"),
)

_FAILURE = _object(
    "Failures of one model, stage, type and masked message. The first one's place is line and "
    "offset, row, or topic, partition and offset, as in error lines.",
    {
        "model": _text("The name of the model, where the job has several."),
        "stage": {"enum": ["decode", "validate", "predict", "encode", ""]},
        "type": _text("The exception's class."),
        "message": _text("What they have in common: the message without numbers and values."),
        "count": {"type": "integer", "minimum": 1, "description": "How many records."},
        "source": _text("The file or topic of the first one."),
        "line": _count("Of the first one."),
        "offset": _count("Of the first one: of its first byte; in a topic its own."),
        "row": _count("Of the first one, in formats with rows."),
        "topic": _text("Of the first one."),
        "partition": _count("Of the first one, in a topic."),
        "error": _text("The first one's whole message."),
        "where": _text("The line of the model's own code that raised it."),
        "traceback": _text("The last frames of the first one's traceback, a line each."),
    },
    optional=("model", "line", "offset", "row", "topic", "partition"),
)

_CRASH = _object(
    "A process that held the model and died, or was ended.",
    {
        "ending": _text("How it ended."),
        "peak_memory": _null_or({"type": "integer", "description": "Bytes, as far as is known."}),
        "places": _list({"type": "string"}, "Where the work was."),
        "records": _count("Records that were found to have caused it, and failed."),
    },
)

_SOFTWARE = {
    "type": "object",
    "description": "The versions of Python and of libraries, by name; null if not installed.",
    "additionalProperties": {"type": ["string", "null"]},
}

_JOB = _object(
    "What resuming compares.",
    {
        "settings": {
            "type": "object",
            "description": "Everything that the predictions depend on, by name.",
        },
        "split_size": _null_or(_count("Bytes of input a split.")),
        "inputs": _list(
            {
                "type": "array",
                "prefixItems": [
                    {"type": "string"},
                    {"type": "integer", "minimum": 0},
                    {"type": "integer"},
                ],
                "minItems": 3,
            },
            "The files: path, bytes, time of change in nanoseconds since the epoch.",
        ),
    },
)

_REQUEST = {
    "type": ["object", "null"],
    "description": "The job as it was asked for, as far as doing it again needs it; no secrets.",
    "properties": {
        "models": {"type": "array", "items": {"type": "object"}},
        "inputs": {"type": "array", "items": {"type": "string"}},
    },
}

_RUN = _object(
    "A finished run over files, or over a topic until now: run.json in its output directory, or "
    "NAME.run.json beside its one file; also what predict --json prints. A run of files into a "
    "topic has no file; what it prints names the topics.",
    {
        "schema": _VERSION,
        "modelbeam": _text("The version of modelbeam."),
        "status": _ENDED,
        "models": {
            "type": "array",
            "items": _of("model"),
            "minItems": 1,
            "description": "Each model.",
        },
        "output": _text("Where it all is."),
        "files": _list(
            {"type": "string"}, "The files of predictions and of error lines, in order."
        ),
        "counts": _of("counts"),
        "failures": _list(_of("failure"), "The kinds of failures; after 20, the others together."),
        "notes": _NOTES,
        "recovered": _count("Records that failed once and not when they were tried again alone."),
        "crashes": _list(_of("crash"), "Processes that died."),
        "splits": _count("Into how many pieces of work the input was cut."),
        "splits_resumed": _count("How many of these an earlier run had done."),
        "bytes_read": _count("Bytes of input, as they are stored."),
        "started": {**_STAMP, "description": "When it started, in UTC."},
        "finished": {**_STAMP, "description": "When it was published, in UTC."},
        "seconds": _SECONDS,
        "records_per_second": _count("Records read by seconds."),
        "runner": _text("Beam's runner."),
        "workers": _text("How many workers, of which kind, and why."),
        "software": _of("software"),
        "job": _of("job"),
        "request": _of("request"),
        "rows": _list(
            {"type": "integer", "minimum": 0},
            "Of an output that is one file: how many of its rows each split made.",
        ),
        "report": _text("The page of the run."),
        "errors": _text("The topic of failed records, where files went into a topic."),
        "group": _text("The group that says how far such a run is."),
        "delivery": {"enum": ["exactly-once", "at-least-once"]},
        "offsets": {
            "type": "object",
            "description": "Of a segment: for each TOPIC/PARTITION the first offset, and the end.",
            "additionalProperties": {"type": "array", "items": {"type": "integer"}},
        },
        "already_finished": {
            "const": True,
            "description": "In what --json prints: the run was finished before, nothing was done.",
        },
    },
    optional=(
        *("rows", "report", "already_finished"),
        *("errors", "group", "delivery", "offsets"),
    ),
)

_RELOADS = _list({"type": "object"}, "Newer models that were taken over or refused, and why.")

_ARRIVING = _object(
    "What --json prints at the end of a run over files as they arrive. Each of its small runs has "
    "a run.json of its own.",
    {
        "schema": _VERSION,
        "status": _ENDED,
        "end": {"enum": ["ended", "stopped"], "description": "How it came to its end."},
        "model": {"type": "object", "description": "What the model, or the first, says of itself."},
        "output": _text("The directory, with one for each small run; or the topic."),
        "runs": _count("Small runs of this process."),
        "entries": _count("Entries of the ledger, of all processes so far."),
        "counts": _of("counts"),
        "failures": _list(_of("failure"), "The kinds of failures."),
        "crashes": _list(_of("crash"), "Processes that died."),
        "reloads": _RELOADS,
        "unread": _list({"type": "string"}, "Why files could not be read, a sentence each."),
        "errors": _text("The topic of failed records, where files go into a topic."),
        "group": _text("The group that says how much is in the topic."),
        "delivery": {"enum": ["exactly-once", "at-least-once"]},
        "state": _text("The directory that holds which files are in the topic."),
        "seconds": _SECONDS,
    },
    optional=("errors", "group", "delivery", "state"),
)

_SEGMENTS = _object(
    "What --json prints at the end of a run from a topic into files. Each segment has a run.json "
    "of its own.",
    {
        "schema": _VERSION,
        "status": _ENDED,
        "end": {"enum": ["ended", "stopped"], "description": "How it came to its end."},
        "model": {"type": "object", "description": "What the model says of itself."},
        "input": _text("The topic that was read."),
        "output": _text("The directory, with one for each segment."),
        "group": _text("The consumer group whose offsets are where the segments end."),
        "segments": _count("Segments of this process."),
        "offsets": {
            "type": "object",
            "description": "For each partition the offset at which the next segment begins.",
            "additionalProperties": {"type": "integer"},
        },
        "counts": _of("counts"),
        "failures": _list(_of("failure"), "The kinds of failures."),
        "crashes": _list(_of("crash"), "Processes that died."),
        "reloads": _RELOADS,
        "lost": _list({"type": "string"}, "What was gone before it was read."),
        "notes": _NOTES,
        "seconds": _SECONDS,
    },
)

_TOPIC = _object(
    "What --json prints at the end of a run from topic to topic.",
    {
        "schema": _VERSION,
        "status": _ENDED,
        "end": _text("How it came to its end: ended, until now, stopped …"),
        "model": {"type": "object", "description": "What the model says of itself."},
        "input": _text("The topic that was read."),
        "output": _text("The topic of predictions."),
        "errors": _text("The topic of failed records."),
        "group": _text("The consumer group that holds the offsets."),
        "delivery": {"enum": ["exactly-once", "at-least-once"]},
        "lanes": _count("Readers of this run."),
        "records_per_second": _count("Records read by seconds."),
        "lag": _null_or(_count("Records that were left to read, as far as is known.")),
        "reloads": _RELOADS,
        "counts": _of("counts"),
        "failures": _list(_of("failure"), "The kinds of failures."),
        "crashes": _list(_of("crash"), "Processes that died."),
        "latency_ms": {
            "type": "object",
            "description": "From a message's time to its commit, by quantile.",
            "additionalProperties": {"type": ["number", "null"]},
        },
        "lost": _list({"type": "string"}, "What was gone before it was read."),
        "notes": _NOTES,
        "seconds": _SECONDS,
    },
    optional=("reloads", "records_per_second", "lag"),
)

_NUMBERS = {
    "type": "object",
    "description": "Of numbers, what the second model says less what the first does.",
}

_COLUMN = _object(
    "One predicted column of both models.",
    {
        "compared": _count("Records."),
        "agreement": _null_or(_number("The share that is equal.", minimum=0, maximum=1)),
        "differences": _NUMBERS,
        "confusion": _list(
            _object(
                "A pair of values.",
                {
                    "first": _text("As JSON."),
                    "second": _text("As JSON."),
                    "count": _count("How many."),
                },
            ),
            "How often each pair of values was predicted.",
        ),
    },
    optional=("differences", "confusion"),
)

_COMPARISON = _object(
    "comparison.json, or NAME.comparison.json beside one file; also what compare --json prints.",
    {
        "schema": _VERSION,
        "models": _list({"type": "string"}, "The names of the two, in order."),
        "compared": _count("Records that both predicted."),
        "predicted_by_one_only": _count("Records that one of them predicted."),
        "agreement": _null_or(_number("The share that is equal.", minimum=0, maximum=1)),
        "columns": {
            "type": "object",
            "description": "Each column that both predict, by name.",
            "additionalProperties": _COLUMN,
        },
        "columns_of_one_only": {
            "type": "object",
            "description": "The columns that only one predicts, by its name.",
            "additionalProperties": {"type": "array", "items": {"type": "string"}},
        },
        "label": {"type": "object", "description": "With --label: how near each comes to it."},
        "read": _count("Records of the input."),
        "failed": {
            "type": "object",
            "description": "Failed records by the name of the model.",
            "additionalProperties": {"type": "integer", "minimum": 0},
        },
        "seconds": _SECONDS,
        "output": _text("The file of the records that differ most."),
        "errors": _text("The file of failed records."),
        "report": _text("The page of the comparison."),
        "run": {
            **_RUN,
            "description": "The run of both models, as run.json has it but for its files.",
            "required": [name for name in _RUN["required"] if name not in ("output", "files")],
        },
    },
    optional=("label", "errors", "report"),
)


def run_schema() -> Schema:
    """The schema: a run, or one of what ``--json`` prints beside it."""
    kinds = {
        "run": _RUN,
        "arriving": _ARRIVING,
        "segments": _SEGMENTS,
        "topic": _TOPIC,
        "comparison": _COMPARISON,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A run of modelbeam",
        "description": (
            f"run.json and what --json prints, version {RUN_SCHEMA}. Keys may be added without a "
            f"new version; readers pass over what they do not know."
        ),
        "anyOf": [_of(name) for name in kinds],
        "$defs": {
            **kinds,
            "counts": _COUNTS,
            "tally": _TALLY,
            "model": _MODEL,
            "failure": _FAILURE,
            "crash": _CRASH,
            "software": _SOFTWARE,
            "job": _JOB,
            "request": _REQUEST,
        },
    }
