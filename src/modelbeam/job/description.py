"""A job: the frozen, checked description of what is to run, from flags or from a YAML file."""

from __future__ import annotations

import codecs
import hashlib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from modelbeam import formats, models, storage
from modelbeam.errors import NotAModelError, RequestError, did_you_mean
from modelbeam.formats.reading import Reading
from modelbeam.job.config import Lines, as_flags, merged_flags, read_config, resolved
from modelbeam.kafka.address import Asked, is_topic
from modelbeam.models import handed
from modelbeam.models.options import FLAGS, Options
from modelbeam.models.target import Target
from modelbeam.predicting.renaming import Rename, parse_rename, with_models
from modelbeam.predicting.several import check_names

MIB = 1 << 20


class ModelSpec(BaseModel):
    """One ``--model [NAME=]TARGET``: where the model is, and what errors call it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: Target
    name: str | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments for the constructor of the model's class."""
    options: Options = Options()

    def keywords(self) -> dict[str, Any]:
        """The arguments with the values of the environment variables that they name.

        Raises:
            RequestError: one of them is not set.
        """
        values: dict[str, Any] = resolved(self.arguments, f"--model {self.target}, 'arguments'")
        return values

    def described(self) -> dict[str, Any]:
        """As a configuration file has it."""
        said: dict[str, Any] = {"target": str(self.target), "arguments": self.arguments}
        if self.target.form == "decorated":
            first, *others = zip(self.target.of, self.arguments["of"], strict=True)
            said = {"target": str(first[0]), "arguments": first[1]}
            said["decorators"] = [
                {"class_path": str(target), "configuration": given} for target, given in others
            ]
        given = self.options.given().items()
        options = {key: list(v) if isinstance(v, tuple) else v for key, v in given}
        return {**({"name": self.name} if self.name else {}), **said, **options}

    def filled(self) -> ModelSpec:
        """The same for another machine, which does not have these variables."""
        return self.model_copy(update={"arguments": self.keywords()})

    @field_validator("target", mode="before")
    @classmethod
    def _target(cls, value: object) -> object:
        if isinstance(value, str):
            return handed.in_main(Target.parse(value))
        return value if isinstance(value, Target) else handed.target_of(value)

    @classmethod
    def parse(cls, value: object) -> ModelSpec:
        """Read ``"[NAME=]TARGET"``, or the mapping that the YAML file has."""
        if isinstance(value, ModelSpec):
            return value
        if isinstance(value, dict):
            value = _as_of_ml_base(value)
            known = [*(cls.model_fields.keys() - {"options"}), *FLAGS]
            for key in value.keys() - set(known):
                raise ValueError(f"unknown key '{key}'{did_you_mean(str(key), known)}")
            chosen = {key: value[key] for key in FLAGS if key in value}
            if "features" in chosen:
                chosen["features"] = names_of(chosen["features"])
            rest = {key: one for key, one in value.items() if key not in FLAGS}
            return cls.model_validate({**rest, "options": chosen})
        if not isinstance(value, str):
            return cls(target=handed.target_of(value))
        match = re.fullmatch(r"(?:([A-Za-z_][\w.-]*)=)?(.+)", value, re.DOTALL)
        if match is None:
            raise ValueError("a model is given as '[NAME=]module:Class'")
        return cls(name=match[1], target=handed.in_main(Target.parse(match[2])))


def _as_of_ml_base(value: dict[str, Any]) -> dict[str, Any]:
    """A mapping with the keys that ml_base's REST service takes, by ours.

    Raises:
        ValueError: something is there twice, or a decorator is not written as one.
    """
    value = dict(value)
    for theirs, ours in (("class_path", "target"), ("configuration", "arguments")):
        if theirs in value and ours in value:
            raise ValueError(f"'{theirs}' and '{ours}' mean the same; give one of them")
        if theirs in value:
            value[ours] = value.pop(theirs)
    value["arguments"] = value.get("arguments") or {}
    decorators = value.pop("decorators", None) or []
    if not decorators:
        return value
    if not isinstance(decorators, list) or not all(isinstance(one, dict) for one in decorators):
        raise ValueError("'decorators' is a list of mappings with class_path and configuration")
    targets, each = [Target.parse(str(value.get("target", "")))], [value["arguments"]]
    for one in decorators:
        for key in one.keys() - {"class_path", "configuration"}:
            nearest = did_you_mean(str(key), ["class_path", "configuration"])
            raise ValueError(f"unknown key '{key}' of a decorator{nearest}")
        if "class_path" not in one:
            raise ValueError("a decorator has a class_path")
        targets.append(Target.parse(str(one["class_path"])))
        each.append(one.get("configuration") or {})
    for target in targets:
        if target.form != "class":
            raise ValueError(f"decorators are for classes, and {target} is none")
    text = str(targets[0]) + "".join(f" in {one}" for one in targets[1:])
    value["target"] = Target(text, "decorated", of=tuple(targets))
    value["arguments"] = {"of": each}
    return value


def several(specs: Sequence[ModelSpec], route: str | None, *, compares: bool = False) -> ModelSpec:
    """Several models as one, which all that runs a model takes.

    Args:
        specs: the models, each with a name.
        route: the column that names the model of a record.
        compares: whether their predictions are only to be compared.
    """
    target = Target(
        ", ".join(f"{one.name}={one.target}" for one in specs),
        "several",
        of=tuple(one.target for one in specs),
    )
    said = [
        {"name": one.name, "arguments": one.arguments, "options": one.options.given()}
        for one in specs
    ]
    return ModelSpec(
        target=target, arguments={"models": said, "route": route, "compares": compares}
    )


def spec_of(model: str, chosen: Mapping[str, Any]) -> ModelSpec:
    """A model as a command line names it.

    Args:
        model: ``[NAME=]TARGET``.
        chosen: what was given of :data:`.options.FLAGS`, by name; ``None`` for nothing.

    Raises:
        RequestError: it is not written as a model is, or a flag is wrong.
    """
    given = {name: chosen[name] for name in FLAGS if chosen.get(name) is not None}
    try:
        spec = ModelSpec.parse(model)
        if "features" in given:
            given["features"] = names_of(given["features"])
        return ModelSpec.model_validate({**dict(spec), "options": given})
    except ValidationError as error:
        raise RequestError(f"--model {model}: {error.errors()[0]['msg']}.") from None
    except ValueError as error:
        raise RequestError(f"--model {model}: {error}.") from None


def several_of(
    named: Mapping[str, str | Mapping[str, Any]], route: str | None, chosen: Mapping[str, Any]
) -> ModelSpec:
    """Several models by their names, as one.

    Args:
        named: for each its target, or a mapping as a configuration file has it.
        route: the column that names the model of a record.
        chosen: what was said of all of them, of :data:`.options.FLAGS`.

    Raises:
        RequestError: one of them is not written as a model is, or a name is none.
    """
    specs = []
    for name, said in named.items():
        if re.fullmatch(r"[A-Za-z_][\w.-]*", name) is None:
            raise RequestError(
                f"models: '{name}' is no name of a model; it begins with a letter, and has "
                f"letters, digits, '_', '.' and '-'."
            )
        try:
            spec = ModelSpec.parse(said if isinstance(said, str) else dict(said))
        except ValidationError as error:
            raise RequestError(f"models, '{name}': {error.errors()[0]['msg']}.") from None
        except ValueError as error:
            raise RequestError(f"models, '{name}': {error}.") from None
        general = spec_of(f"{name}={spec.target}", chosen).options
        update = {"name": name, "options": spec.options.over(general)}
        specs.append(spec.model_copy(update=update))
        models.kind_of(spec.target)
    if not specs:
        raise RequestError("models: there are none.")
    return several(specs, route)


class Job(BaseModel):
    """What ``modelbeam predict`` is asked to do. Sizes are bytes; ``None`` means the default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: tuple[ModelSpec, ...] = Field(min_length=1)
    inputs: tuple[str, ...] = Field(min_length=1)
    output: str
    input_format: str | None = None
    output_format: str | None = None
    delimiter: str | None = None
    encoding: str | None = None
    columns: tuple[str, ...] | None = None
    keep: Literal["all"] | tuple[str, ...] = ()
    rename: Rename = ()
    route: str | None = Field(default=None, min_length=1)
    shards: int | None = Field(default=None, ge=1)
    limit: int | None = Field(default=None, ge=1)
    batch_size: int | Literal["auto"] = "auto"
    workers: int | None = Field(default=None, ge=1, le=1024)
    worker_mode: Literal["auto", "threads", "processes"] = "auto"
    max_errors: str | None = None
    record_timeout: float | None = Field(default=None, gt=0)
    max_crashes: int = Field(default=10, ge=0)
    max_wait: float | None = Field(default=None, gt=0)
    resume: bool = False
    overwrite: bool = False
    split_size: int | None = Field(default=None, ge=1)
    max_record_size: int = Field(default=32 * MIB, ge=1)
    errors: str | None = None
    errors_format: Literal["original", "json"] = "original"
    streaming: bool = False
    stop_after: float | None = Field(default=None, gt=0)
    stop_when_idle: float | None = Field(default=None, ge=0)
    settle: float = Field(default=10.0, ge=0)
    segment: float = Field(default=60.0, gt=0)
    segment_records: int = Field(default=1_000_000, ge=1)
    state: str | None = None
    start_from: str = "earliest"
    group: str | None = None
    kafka_config: str | None = None
    delivery: Literal["exactly-once", "at-least-once"] = "exactly-once"
    on_data_loss: Literal["fail", "earliest"] = "fail"
    metrics_port: str | None = None
    stall_after: float = Field(default=60.0, gt=0)
    detach: bool = False
    packages: bool = True
    """Whether an engine's workers are sent what the model needs; they may have it already."""
    beam_options: tuple[str, ...] = ()
    features: tuple[str, ...] | None = None
    proba: bool = False
    trusted_types: tuple[str, ...] = ()
    allow_version_mismatch: bool = False
    report: bool = True
    """Whether is collected what a report shows, and the report drawn."""
    report_examples: int = Field(default=5, ge=0, le=50)
    mask: tuple[str, ...] = ()
    baseline: str | None = Field(default=None, min_length=1)
    """The output of an earlier run that this one is compared with, or ``last``."""
    fail_on_drift: float | None = Field(default=None, gt=0)
    metrics_file: str | None = Field(default=None, min_length=1)
    _compares: bool = PrivateAttr(default=False)
    _again: str | None = PrivateAttr(default=None)

    @field_validator("models", mode="before")
    @classmethod
    def _models(cls, value: object) -> object:
        listed = value if isinstance(value, (list, tuple)) else [value]
        return tuple(ModelSpec.parse(item) for item in listed)

    @field_validator("inputs", mode="before")
    @classmethod
    def _inputs(cls, value: object) -> object:
        listed = value if isinstance(value, (list, tuple)) else [value]
        if not all(isinstance(item, (str, Path)) and str(item) for item in listed):
            raise ValueError(
                "an input is a path, a glob, a directory or a URL; write a table or a list to a "
                "file of JSON Lines first, or use modelbeam.Predict in a pipeline"
            )
        return tuple(storage.normalize(str(item)) for item in listed)

    @field_validator("output", mode="before")
    @classmethod
    def _output(cls, value: object) -> object:
        return storage.normalize(str(value)) if isinstance(value, (str, Path)) else value

    @field_validator("inputs", "output", mode="after")
    @classmethod
    def _no_template(cls, value: Any) -> Any:
        for text in value if isinstance(value, tuple) else [value]:
            if re.search(r"\{\{.*\}\}|\$[A-Za-z_]\w*|\$\{", text) and not os.path.lexists(text):
                raise ValueError(
                    "it holds a template that nothing has filled in: in a --config file write "
                    "${NAME} for an environment variable; {{ds}} and the like are filled by the "
                    "scheduler, before the command runs"
                )
        return value

    @field_validator("keep", mode="before")
    @classmethod
    def _keep(cls, value: object) -> object:
        if value is None:
            return ()
        if isinstance(value, str):
            return "all" if value == "all" else tuple(c for c in value.split(",") if c)
        return value

    @field_validator("rename", mode="before")
    @classmethod
    def _rename(cls, value: object) -> object:
        return parse_rename(value)

    @field_validator("delimiter")
    @classmethod
    def _delimiter(cls, value: str | None) -> str | None:
        value = {"tab": "\t", "\\t": "\t"}.get(value or "", value)
        if value is not None and (len(value) != 1 or not value.isascii() or value in '"\r\n'):
            raise ValueError("a delimiter is one ASCII character, or 'tab'")
        return value

    @field_validator("encoding")
    @classmethod
    def _encoding(cls, value: str | None) -> str | None:
        return None if value is None else plain_encoding(value)

    @field_validator("columns", mode="before")
    @classmethod
    def _columns(cls, value: object) -> object:
        names = value.split(",") if isinstance(value, str) else value
        if isinstance(names, (list, tuple)):
            twice = [name for name in names if names.count(name) > 1]
            if not names or "" in names or twice:
                raise ValueError("name each column of the file, in order and once: A,B,C")
        return names

    @field_validator("features", mode="before")
    @classmethod
    def _features(cls, value: object) -> object:
        return names_of(value)

    @field_validator("mask", mode="before")
    @classmethod
    def _mask(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(name for name in value.split(",") if name)
        return () if value is None else value

    @field_validator("trusted_types", mode="before")
    @classmethod
    def _trusted_types(cls, value: object) -> object:
        return tuple(value.split(",")) if isinstance(value, str) else value

    @field_validator("batch_size")
    @classmethod
    def _batch_size(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("a batch has at least one record")
        return value

    @field_validator("max_errors", mode="before")
    @classmethod
    def _max_errors(cls, value: object) -> object:
        if value is None:
            return None
        text = str(value)
        if not re.fullmatch(r"\d+|\d+(\.\d+)?%", text) or (
            text[-1] == "%" and float(text[:-1]) > 100
        ):
            raise ValueError("give a number of records (100) or a share of them (0.5%)")
        return text

    @field_validator("split_size", "max_record_size", mode="before")
    @classmethod
    def _sizes(cls, value: object) -> object:
        return parse_size(value) if isinstance(value, str) else value

    @field_validator("metrics_port", mode="before")
    @classmethod
    def _metrics_port(cls, value: object) -> object:
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if isinstance(text, str):
            listening_place(text)
        return text

    @field_validator(
        "stop_after", "stop_when_idle", "settle", "segment", "stall_after", mode="before"
    )
    @classmethod
    def _durations(cls, value: object) -> object:
        return parse_duration(value) if isinstance(value, str) else value

    @field_validator("start_from", mode="before")
    @classmethod
    def _start_from(cls, value: object) -> object:
        text = str(value)
        if text not in ("earliest", "latest") and not text.isdigit():
            try:
                datetime.fromisoformat(text.replace("Z", "+00:00"))
            except ValueError:
                raise ValueError(
                    "give earliest, latest, a time (2026-11-27T12:00:00Z) or milliseconds since "
                    "the epoch"
                ) from None
        return text

    @property
    def model(self) -> ModelSpec:
        """What this job runs, with what its own flags say of it; of several models, all of them."""
        options = Options(
            self.features, self.proba, self.trusted_types, self.allow_version_mismatch
        )
        each = [
            one.model_copy(update={"options": options.over(one.options)}) for one in self.models
        ]
        return each[0] if len(each) == 1 else several(each, self.route, compares=self._compares)

    @property
    def renames(self) -> Rename:
        """The pairs of ``rename``; of several models with the model's name before both."""
        if len(self.models) == 1:
            return self.rename
        return with_models(self.rename, [one.name or "" for one in self.models])

    def comparing(self, output: str) -> Job:
        """The job whose predictions, for all records and in JSON Lines, are compared afterwards."""
        settings = {"output": output, "output_format": "jsonl", "keep": "all"}
        made = self.model_copy(update=settings)
        made._compares = True
        return made

    @property
    def compares(self) -> bool:
        """Whether the predictions of several models are only to be compared."""
        return self._compares

    @property
    def again(self) -> str | None:
        """Where it stands what an earlier run made of each split, if only failures are done."""
        return self._again

    def retrying(self, again: str) -> Job:
        """The job that predicts the failed records of an earlier run of it."""
        made = self.model_copy()
        made._again = again
        return made

    def request(self) -> dict[str, Any]:
        """What describes the job to a later one that does some of it again; holds no secret."""
        models = [one.described() for one in self.models]
        said = self.model_dump(mode="json", include=_AGAIN, exclude_defaults=True)
        return {**said, "models": models, "inputs": list(self.inputs)}

    @property
    def reading(self) -> Reading:
        """How the input files are to be read, where they do not say it."""
        return Reading(self.delimiter, self.encoding, self.columns)

    @property
    def asked(self) -> Asked | None:
        """What the source of topics is told."""
        if not is_topic(self.inputs[0]):
            return None
        config = os.path.abspath(self.kafka_config) if self.kafka_config else None
        return Asked(config, self.consumer_group, self.begin, self.on_data_loss == "earliest")

    @property
    def begin(self) -> str | int:
        """Where a group without offsets begins: a word, or milliseconds since the epoch."""
        text = self.start_from
        return text if text in ("earliest", "latest") else _milliseconds(text)

    @property
    def consumer_group(self) -> str:
        """The consumer group: made of the model's name and the output, the same at every start."""
        if self.group:
            return self.group
        spec = self.model
        where = self.output if is_topic(self.output) else _absolute(self.output)
        words = [spec.name or str(spec.target).rpartition(":")[2], where.rpartition("/")[2]]
        digest = hashlib.sha256(where.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(["modelbeam", *words, digest]))

    @property
    def single_file(self) -> bool:
        """Whether the output is one file (it has a data suffix) and not a directory of shards."""
        return not self.output.endswith("/") and formats.from_suffix(self.output) is not None

    def on_any_machine(self) -> Job:
        """The same job with its local paths made absolute, as other machines need them."""
        return self.model_copy(
            update={
                "inputs": tuple(_absolute(path) for path in self.inputs),
                "output": _absolute(self.output),
            }
        )

    def checked(self) -> Job:
        """Return the job itself if it can be run by this version.

        Raises:
            RequestError: two flags exclude each other, or a format is not known.
        """
        if len(self.models) > 1:
            check_names([one.name for one in self.models])
            if is_topic(self.output):
                raise RequestError(
                    "--model was given more than once; a run into a topic has one model in this "
                    "version. Start one command a model, each with an --output and a --group of "
                    "its own."
                )
        elif self.route is not None:
            raise RequestError(
                f"--route {self.route} chooses among several models; name them: -m a=TARGET "
                f"-m b=TARGET."
            )
        if self.fail_on_drift is not None and self.baseline is None:
            raise RequestError(
                f"--fail-on-drift {self.fail_on_drift:g} needs a run to compare with: add "
                f"--baseline OUTPUT, or --baseline last."
            )
        if self.baseline is not None and not self.report:
            raise RequestError("--baseline needs what --no-report leaves out; give one of them.")
        if self.baseline is not None and (self.streaming or is_topic(self.output)):
            raise RequestError(
                "--baseline compares runs that end with what files they leave; a stream leaves "
                "none. Leave it out."
            )
        if self.errors is not None and not is_topic(self.output):
            raise RequestError(
                f"--errors {self.errors} is for a run into a topic; into files, failed records go "
                f"beside the predictions. Leave it out."
            )
        for setting in ("limit", "shards", "overwrite"):
            if self.streaming and getattr(self, setting) not in (None, False):
                raise RequestError(
                    f"--{setting} is for a run that ends by itself; leave out --streaming."
                )
        if self.resume and self.overwrite:
            raise RequestError("--resume and --overwrite exclude each other; give one of them.")
        if self.shards is not None and (self.single_file or is_topic(self.output)):
            raise RequestError(
                f"--shards {self.shards}: --output {self.output} is no directory of shards. Name "
                f"a directory, or leave --shards out."
            )
        for flag, value in (
            ("--input-format", self.input_format),
            ("--output-format", self.output_format),
        ):
            if value is not None:
                formats.parse(value, flag)
        return self


_AGAIN = {
    *(
        "input_format",
        "output_format",
        "delimiter",
        "encoding",
        "columns",
        "keep",
        "rename",
        "shards",
    ),
    *("route", "limit", "batch_size", "record_timeout", "max_crashes", "max_record_size"),
    *("features", "proba", "trusted_types", "allow_version_mismatch"),
    *("report", "report_examples", "mask"),
}


def names_of(value: object) -> object:
    """Names of columns: ``"A,B"`` or a list of them.

    Raises:
        ValueError: one of them is there twice, or is nothing.
    """
    names = tuple(value.split(",")) if isinstance(value, str) else value
    if isinstance(names, (list, tuple)) and (
        not names or "" in names or len(set(map(str, names))) < len(names)
    ):
        raise ValueError("name each of the model's columns, in its order and once: A,B,C")
    return names


def _absolute(path: str) -> str:
    if storage.is_url(path):
        return path
    return os.path.abspath(path) + ("/" if path.endswith("/") else "")


def _milliseconds(text: str) -> int:
    """A time as ``--from`` has it, in milliseconds since the epoch."""
    if text.isdigit():
        return int(text)
    when = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return int((when if when.tzinfo else when.replace(tzinfo=timezone.utc)).timestamp() * 1000)


_PLACE = re.compile(r"(?:(\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]+):)?(\d{1,5})")


def listening_place(text: str) -> tuple[str, int]:
    """Read ``PORT`` or ``HOST:PORT``; without a host only this machine can ask.

    Raises:
        ValueError: it is neither.
    """
    match = _PLACE.fullmatch(text)
    if match is None or int(match[2]) > 65535:
        raise ValueError(
            "give a port (9100), which only this machine reaches, or HOST:PORT (0.0.0.0:9100)"
        )
    return (match[1] or "127.0.0.1").strip("[]"), int(match[2])


def parse_duration(text: str) -> float:
    """Read ``"5s"``, ``"500ms"``, ``"2m"``, ``"1h"`` or ``"5"`` as seconds.

    Raises:
        ValueError: it is not a duration.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", text.strip().lower())
    if match is None:
        raise ValueError(f"'{text}' is not a duration; write it as 30s, 5m or 1h")
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    return float(match[1]) * units[match[2] or "s"]


def parse_size(text: str) -> int:
    """Read ``"64MB"``, ``"64MiB"`` or ``"67108864"`` as bytes (both units are 1024-based).

    Raises:
        ValueError: it is not a size.
    """
    match = re.fullmatch(r"(\d+)\s*([kmgt]?)i?b?", text.strip().lower())
    if match is None:
        raise ValueError(f"'{text}' is not a size; write it as 64MB")
    return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[match[2]]


def plain_encoding(name: str) -> str:
    """An encoding by its usual name, if it is one in which ASCII is ASCII.

    Raises:
        ValueError: there is no such encoding, or the bytes of separators may be other characters.
    """
    try:
        found = codecs.lookup(name).name
        ascii_ = bytes(range(128))
        plain = ascii_.decode(found) == ascii_.decode("ascii")
    except UnicodeError:
        plain = False
    except LookupError:
        raise ValueError("there is no such encoding") from None
    if not plain:
        raise ValueError(
            f"files are cut at ASCII characters, so convert it: iconv -f {name} -t UTF-8"
        )
    return found


def build_job(settings: dict[str, Any], config: str | None = None) -> Job:
    """Make a job of flags and, where given, a YAML file; a flag wins over the file.

    Args:
        settings: names as in :class:`Job`; those that are ``None`` were not given.
        config: path of a YAML file with the same names (dashes and underscores are alike; ``model``
            and ``input`` are accepted for ``models`` and ``inputs``).

    Raises:
        RequestError: the file cannot be read, or a setting is unknown, missing or wrong.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    merged: dict[str, Any] = {}
    lines = Lines("", {})
    if config:
        merged, lines = read_config(config, Job.model_fields)
    if "models" not in given:
        _check_models(merged.get("models", ()), lines)
    try:
        if "beam_options" in merged:
            file = as_flags(merged["beam_options"])
            given["beam_options"] = merged_flags(file, given.get("beam_options", ()))
        return Job.model_validate({**merged, **given}).checked()
    except ValidationError as error:
        raise RequestError(_first_problem(error, merged.keys() - given.keys(), lines)) from None
    except ValueError as error:
        raise RequestError(f"{lines.of('beam_options')}: {error}.") from None


def _check_models(listed: Sequence[Any], lines: Lines) -> None:
    """Tell of a model of the file that is wrong in which line it is."""
    for at, one in enumerate(listed):
        try:
            ModelSpec.parse(one)
        except ValidationError as error:
            problem = error.errors()[0]
            key = problem["loc"][0] if problem["loc"] else ""
            said = problem["msg"].removeprefix("Value error, ")
            raise RequestError(f"{lines.of('models', at, key)}: {said}.") from None
        except (ValueError, NotAModelError) as error:
            text = str(error).removesuffix(".")
            raise RequestError(f"{lines.of('models', at)}: {text}.") from None


def _first_problem(error: ValidationError, of_file: Collection[str], lines: Lines) -> str:
    problem = error.errors()[0]
    name = str(problem["loc"][0]) if problem["loc"] else "job"
    flag = {"models": "--model", "inputs": "--input"}.get(name, "--" + name.replace("_", "-"))
    if problem["type"] in ("missing", "too_short"):
        return f"{flag} is missing; every job needs it."
    message = problem["msg"].removeprefix("Value error, ")
    if name in of_file:
        return f"{lines.of(name)} is {problem['input']!r}: {message}."
    return f"{flag} {problem['input']!r}: {message}."
