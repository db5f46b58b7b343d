"""What each kind of error and of failed record means, and what to do about it, by its code.

A code never changes and is never given twice: people search for it, and scripts compare it.
Codes under 100 are of no kind, 1xx of a request that is wrong (nothing ran), 2xx of a job that
failed, 3xx of records that failed; those are error lines, and the job goes on.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Explanation(NamedTuple):
    """One kind of error or of failed record.

    Attributes:
        code: such as ``MB101``.
        name: of the exception's class; of several kinds of exceptions what they have in common.
        meaning: what has happened, and why it may have.
        remedy: what to do.
        stages: of a record's failure, in which stages a failure of this type is this one.
    """

    code: str
    name: str
    meaning: str
    remedy: str
    stages: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        said = {"code": self.code, "type": self.name, "meaning": self.meaning}
        return {**said, "what_to_do": self.remedy, "stages": list(self.stages)}

    @property
    def kind(self) -> str:
        """What sort of thing it is, in a few words."""
        return KINDS[self.code[2]]


KINDS = {
    "0": "an end of its own",
    "1": "the request is wrong and nothing ran (exit code 2)",
    "2": "the job failed (exit code 1)",
    "3": "a record failed: it is an error line, and the job goes on",
}

_ERRORS = (
    Explanation(
        "MB001",
        "ModelbeamError",
        "Something went wrong that modelbeam has no sentence for: most likely a defect of its own. "
        "What was committed before is kept.",
        "Run the same command with --verbose and report the traceback; --resume goes on from what "
        "is done.",
    ),
    Explanation(
        "MB002",
        "InterruptedRunError",
        "Ctrl-C, or SIGTERM as schedulers and container platforms send it, ended the command (exit "
        "code 130). All of its processes are gone.",
        "Run the same command with --resume: splits that were finished are not done again.",
    ),
    Explanation(
        "MB100",
        "RequestError",
        "A flag, a key of the --config file or an argument of predict() is unknown, missing, of a "
        "wrong value, or excludes another one. The sentence names it.",
        "Mend what it names. modelbeam COMMAND --help-all lists all flags; modelbeam check tries "
        "everything but the run.",
    ),
    Explanation(
        "MB101",
        "InputNotFoundError",
        "A path or glob of --input stands for no file that could be read. In a container or under "
        "cron the working directory is often another one than at the prompt; a shell may have "
        "expanded a glob before modelbeam saw it; names that begin with '.' or '_' are no data.",
        "List the path as the same user on the same machine (ls, or the store's own tool); write "
        "it absolute; put globs into quotes.",
    ),
    Explanation(
        "MB102",
        "OutputExistsError",
        "There is something at --output already: a finished run, one that did not end, or files of "
        "somebody else; or another process is writing there right now.",
        "--resume finishes a run that did not end, --overwrite replaces what is there once the new "
        "output is complete; or name another output. modelbeam runs DIR shows what is there.",
    ),
    Explanation(
        "MB103",
        "ResumeError",
        "The run that --resume found is not this one; the sentence says in what they differ. Old "
        "predictions and new ones would be mixed in one output, and nobody could tell them apart.",
        "Give the flags, the model and the inputs that it was begun with; or start again with "
        "--overwrite.",
    ),
    Explanation(
        "MB110",
        "ModelError",
        "What --model names cannot be used as it is; the sentence says what is wrong with it.",
        "modelbeam describe -m TARGET loads a model by itself, without any data, which is the "
        "quickest way to try again.",
    ),
    Explanation(
        "MB111",
        "ModelNotFoundError",
        "The module or the class in it is not to be found from here: it is not installed in this "
        "Python environment, the name is misspelt, or another module of its name comes first.",
        "Install the model's package into the environment of modelbeam (python -m pip install), or "
        "run in the directory that holds the module.",
    ),
    Explanation(
        "MB112",
        "NotAModelError",
        "The target is there, and it is nothing that can predict: a class without predict(), a "
        "file of a library that is not supported, a directory without a model, a flag that this "
        "kind of model does not take.",
        "docs/models.md lists what is taken. A function of a few lines around anything else is a "
        "model too: --model module:function.",
    ),
    Explanation(
        "MB113",
        "ModelLoadError",
        "The model's own code, or the library that reads its file, raised an exception while the "
        "model was imported, built or read; or a library that it needs is not installed.",
        "The sentence gives the exception and the line; --verbose the whole traceback. Import the "
        "module in a Python prompt of the same environment to see the same.",
    ),
    Explanation(
        "MB114",
        "PackageError",
        "An engine's workers are sent the model and the libraries that it needs, and something of "
        "it cannot travel: a library without a wheel for them, files that are not in the package, "
        "another version of Python.",
        "modelbeam package -m TARGET shows how each part travels. Workers that have everything "
        "installed need none of it: --no-packages.",
    ),
    Explanation(
        "MB115",
        "SchemaMismatchError",
        "Columns that the model needs are missing in the data, as the first records or the file's "
        "schema show. Every record would have failed.",
        "modelbeam describe -m TARGET lists the model's columns. Rename those of the data, name "
        "them with --columns (CSV without a header) or --features.",
    ),
    Explanation(
        "MB200",
        "JobError",
        "The job began and did not come to its end. What was committed is kept beside the output, "
        "and nothing half done is published.",
        "Mend what the sentence names, then run the same command with --resume.",
    ),
    Explanation(
        "MB201",
        "InputReadError",
        "An input that was there when the job was planned has vanished, was changed meanwhile, or "
        "is damaged: a compressed file that is cut off, a Parquet page that cannot be decoded. All "
        "other files are done first on this machine.",
        "Repair or replace the file it names and run the same command with --resume; only that "
        "file is read again.",
    ),
    Explanation(
        "MB202",
        "OutputWriteError",
        "The file system or the store did not take what was to be written: it is full, read only, "
        "or another job took the output over. The sentence says whether the earlier output still "
        "stands.",
        "Make room or fix the permissions, then --resume; publishing may be repeated until it "
        "succeeds.",
    ),
    Explanation(
        "MB203",
        "StorageError",
        "A store (s3, gs, hdfs …) refuses for a reason that waiting does not mend: no or expired "
        "credentials, no permission, no such bucket, or the library for it is not installed.",
        "Try the store's own command line tool with the same account. On an engine it is the "
        "workers' account that counts.",
    ),
    Explanation(
        "MB204",
        "WorkerDiedError",
        "The process that holds the model ended without an answer: killed for lack of memory, a "
        "crash in native code, or the model called exit().",
        "Look for its last words on stderr, and for the kernel's (dmesg). Fewer --workers or a "
        "smaller --batch-size need less memory; --resume goes on.",
    ),
    Explanation(
        "MB205",
        "WorkerVersionError",
        "Workers have another version of Python, of Beam, of modelbeam or of a library than the "
        "submission, so that their predictions could be other ones, or the model's pickle is not "
        "readable there.",
        "Use a worker image with the versions that it names (modelbeam package -o DIR writes a "
        "Dockerfile), or submit from an environment like the workers'.",
    ),
    Explanation(
        "MB206",
        "TooManyErrorsError",
        "More records failed than --max-errors allows. Nothing was published, and the error lines "
        "so far are kept where the sentence says; a run that goes on keeps what it has committed.",
        "Read the first ones. Then mend the data or the model and start again with --overwrite, or "
        "allow more with --resume --max-errors N.",
    ),
    Explanation(
        "MB207",
        "TooManyCrashesError",
        "More records than --max-crashes allows killed the model's process, or it died again and "
        "again over none in particular. Each costs a fresh load of the model.",
        "The error lines of type ProcessDiedError show the records. If memory was short, use fewer "
        "--workers; if the model is at fault, mend it and --resume.",
    ),
    Explanation(
        "MB208",
        "NothingPredictedError",
        "Either there was not one record in the input, or every one of them failed. An output "
        "without a single prediction is taken for a failure, since a nightly job would go on with "
        "nothing.",
        "The first failure is in the sentence, all are in the errors files. modelbeam check shows "
        "the same within seconds.",
    ),
    Explanation(
        "MB209",
        "ReconciliationError",
        "The numbers of records read, predicted and failed do not add up, or a split has left no "
        "manifest. It is a defect, or somebody removed files of the job's state; nothing of it is "
        "published.",
        "Run the same command with --resume; should it happen again, start with --overwrite and "
        "report it with the sentence.",
    ),
    Explanation(
        "MB210",
        "DataLossError",
        "The broker deleted messages before they were read: the topic's retention is shorter than "
        "the time that nobody read it, or the topic was made anew.",
        "--on-data-loss earliest goes on at the oldest message that is left and says what was "
        "passed over; then lengthen the retention.",
    ),
    Explanation(
        "MB211",
        "StoppedError",
        "A split was not begun since the job had failed before; another error says why. It is seen "
        "only in logs.",
        "Look for the first error of the same run.",
    ),
    Explanation(
        "MB212",
        "SplitsDiedError",
        "A process died over some splits, which are then tried again with care, record by record. "
        "It is seen only in logs, unless that fails as well.",
        "Nothing, as long as the run goes on; its summary tells of the crash.",
    ),
    Explanation(
        "MB213",
        "DriftError",
        "Between this run and the one that --baseline names, the values of a column have moved "
        "farther apart than --fail-on-drift allows. The predictions are published and kept.",
        "Look at the column in the report: other data, a unit that changed, a default value. Use "
        "the predictions if it is right so, and give a higher limit or a newer baseline.",
    ),
    Explanation(
        "MB220",
        "EngineError",
        "Flink, Spark, Dataflow or another engine refused the job, lost it, or it was cancelled or "
        "failed there for a reason of its own.",
        "The engine's page of the job has its log. modelbeam check with the same flags examines "
        "the engine and its workers; --resume goes on with what is done.",
    ),
    Explanation(
        "MB221",
        "EngineUnreachableError",
        "Nothing answers at the engine's address, or what answers is something else: a wrong host "
        "or port, a tunnel that is down, a firewall.",
        "Open the address with curl or a browser from the same machine. A job that runs there goes "
        "on meanwhile; --resume follows it again.",
    ),
    Explanation(
        "MB222",
        "JobNotFoundError",
        "The engine is there and knows no job of that id: it was restarted, or has forgotten the "
        "jobs that ended long ago.",
        "--resume submits what is left; splits that were committed are not done again.",
    ),
    Explanation(
        "MB223",
        "InvisibleStateError",
        "The workers look at the path of the output or of an input and do not see the files that "
        "the submission sees: a local path that is another disk there, a volume that is not "
        "mounted, a bucket of another project.",
        "Use a URL (s3://, gs://, hdfs://), or mount the same directory at the same path on all "
        "workers.",
    ),
)
"""One for each class in the tree of errors."""

_RECORDS = (
    Explanation(
        "MB301",
        "JSONDecodeError",
        "The line is not JSON: cut off, two objects on one line, single quotes, a trailing comma, "
        "NaN or Infinity as a number, bytes that are not UTF-8, deeper than about 1024 levels.",
        "The column in the message is where reading stopped; the line itself is under record. Most "
        "often the program that wrote it should use a JSON library.",
        ("decode",),
    ),
    Explanation(
        "MB302",
        "NotAnObjectError",
        "The line or element is JSON, and not an object with named fields: an array, a text, a "
        "number, null. A model takes fields by their names.",
        "Write each record as {…}. A file that is one array of objects is read with --input-format "
        "json.",
        ("decode", "validate"),
    ),
    Explanation(
        "MB303",
        "RecordTooLongError",
        "The record has more bytes than --max-record-size (32 MB by default); a missing newline or "
        "an unclosed quote makes one record of a whole file. Only its beginning is kept.",
        "Look for the missing end at that place; if records are really that large, raise "
        "--max-record-size.",
        ("decode",),
    ),
    Explanation(
        "MB304",
        "UnicodeDecodeError",
        "The record's bytes are no text in the encoding of the file, which is UTF-8 unless it was "
        "told otherwise.",
        "Give --encoding (latin-1, cp1252 …) for CSV; the bytes themselves are under "
        "record_base64.",
        ("decode",),
    ),
    Explanation(
        "MB305",
        "CsvError",
        "The record of a CSV file has more or fewer fields than the header, or a quote in it is "
        "never closed or stands where none may.",
        "Look for a separator or a newline within a field that is not in quotes. --delimiter names "
        "the separator where it was found out wrongly.",
        ("decode",),
    ),
    Explanation(
        "MB306",
        "HeaderAgainError",
        "A record repeats the header of its CSV file, as when files were put together with cat.",
        "It costs nothing but the error line; remove it where the files are joined.",
        ("decode",),
    ),
    Explanation(
        "MB307",
        "PartitionMismatchError",
        "A column stands in the record and, with another value, in the name of a directory "
        "(key=value); which of the two is right, nobody can tell.",
        "Move the file into the directory of its value, or leave the column out of the files.",
        ("decode",),
    ),
    Explanation(
        "MB308",
        "NotARecordError",
        "The file's schema allows values that are no record with named fields (an Avro file of a "
        "union, for one), and this is such a value. A model takes fields by their names.",
        "Write the value as a record with one field.",
        ("decode",),
    ),
    Explanation(
        "MB311",
        "SchemaValidationError",
        "A field that the model needs is missing, null, of another type, or beyond its limits. The "
        "message names the field; the model was not asked.",
        "modelbeam describe -m TARGET lists the fields and limits; docs/types.md says what is "
        "converted.",
        ("validate",),
    ),
    Explanation(
        "MB312",
        "WrongTypeError",
        "The text in a CSV field is not of the type that the model's schema says, such as 'n/a' "
        "for a number.",
        "Leave a field empty where a value is missing, or make the model's schema take a string.",
        ("validate",),
    ),
    Explanation(
        "MB313",
        "NoTypeError",
        "A value fits no column, whatever the others are: an integer beyond 64 bits, an array of "
        "mixed types, more than some levels of nesting, a lone surrogate.",
        "Models that take records or lists get such values as they are; tables cannot hold them.",
        ("validate", "encode"),
    ),
    Explanation(
        "MB314",
        "UnknownRouteError",
        "The column of --route names none of the job's models, or is missing, null or no text in "
        "this record.",
        "Name the models (-m NAME=TARGET) as the column does.",
        ("validate",),
    ),
    Explanation(
        "MB315",
        "UnknownCategoryError",
        "A category that was not there when the model was trained. The library would have "
        "predicted something for it without a word, as for a missing value.",
        "Map it to a known one, or train again with it.",
        ("validate", "predict"),
    ),
    Explanation(
        "MB321",
        "WrongNumberOfPredictionsError",
        "The model was given some records and returned more or fewer predictions. Which belongs to "
        "which cannot be known, so none is used.",
        "Return one prediction for each record, in the same order; a filter inside the model is "
        "the usual cause.",
        ("predict",),
    ),
    Explanation(
        "MB322",
        "EmptyPredictionError",
        "The function returned None, or no list for a list of records: most often a return is "
        "missing on one of its paths.",
        "Return a prediction for each record, be it {'label': None}.",
        ("predict",),
    ),
    Explanation(
        "MB323",
        "ProcessDiedError",
        "This record alone, in a fresh process, ended the process that holds the model: a crash in "
        "native code, exit(), or more memory than there is.",
        "Predict it alone in a Python prompt to see it happen; modelbeam retry OUTPUT does the "
        "failed records again once the model is mended.",
        ("predict",),
    ),
    Explanation(
        "MB324",
        "TimeoutError",
        "The record took longer than --record-timeout, alone in a fresh process; or the model "
        "itself raised TimeoutError, such as for a service that it asks.",
        "Raise --record-timeout if records may take that long.",
        ("predict",),
    ),
    Explanation(
        "MB325",
        "TooMuchMemoryError",
        "Memory ran out over a call with fewer records, so this one was not tried.",
        "A smaller --batch-size, or fewer --workers.",
        ("predict",),
    ),
    Explanation(
        "MB331",
        "NotAPredictionError",
        "What the model returned is no prediction: neither a mapping nor an object with fields.",
        "Return a dict, a pydantic object, a dataclass or a named tuple; a plain function may "
        "return a bare value.",
        ("predict", "encode"),
    ),
    Explanation(
        "MB332",
        "ColumnClashError",
        "The model predicts a column that is kept of the input as well; one would hide the other.",
        "Choose the kept columns with --keep A,B, or give the predicted one another name: --rename "
        "OLD=NEW.",
        ("encode",),
    ),
    Explanation(
        "MB333",
        "UnknownColumnError",
        "The prediction has a column that the output does not have. In formats with one schema "
        "the columns are fixed before the run, by the model's output schema or its first "
        "predictions.",
        "Give the model an output schema that names all columns, or write JSON Lines.",
        ("encode",),
    ),
    Explanation(
        "MB334",
        "DoesNotFitError",
        "A value does not fit the type of its column in the output, which was fixed before the "
        "run: a text among numbers, an integer that is too large.",
        "Let the output schema say the wider type, or write JSON Lines, where each record has its "
        "own.",
        ("encode",),
    ),
    Explanation(
        "MB335",
        "MessageTooLargeError",
        "The prediction, or the error record, is larger than its topic takes (max.message.bytes).",
        "Keep fewer columns (--keep), or raise the topic's limit.",
        ("encode",),
    ),
    Explanation(
        "MB390",
        "an exception of the model",
        "The model's own code, or a library that it uses, raised for this record, twice: in its "
        "batch, and once more alone.",
        "The summary names the line of the model's code, run.json has the traceback. Once it is "
        "mended, modelbeam retry OUTPUT does the failed records again.",
        ("predict",),
    ),
    Explanation(
        "MB391",
        "an exception of the schema",
        "The model's input schema (schema, pydantic, or the model itself) rejects the record; its "
        "own words are in the message.",
        "modelbeam describe -m TARGET prints the schema. Mend the data, or loosen the schema.",
        ("validate",),
    ),
    Explanation(
        "MB392",
        "a prediction that cannot be written",
        "The model has predicted, and the format cannot hold what it returned: NaN in JSON, an "
        "object of a class, a key that is no text.",
        "Return plain values: numbers, texts, lists and dicts of these.",
        ("encode",),
    ),
    Explanation(
        "MB393",
        "a record that cannot be read",
        "The reader of the file's format, or the library behind it, rejects the record; its own "
        "words are in the message.",
        "The place and the original are in the error line; docs/bad-input.md lists what becomes of "
        "what.",
        ("decode",),
    ),
)
"""One for each type of failed records that is ours; the last ones are of all other types."""

ALL = (*_ERRORS, *_RECORDS)

_OF_STAGE = {"predict": "MB390", "validate": "MB391", "encode": "MB392", "decode": "MB393"}

_OF_FAILURE = {(one.name, stage): one.code for one in _RECORDS for stage in one.stages}


def code_of_failure(stage: str, type_: str) -> str | None:
    """The code of a record's failure; ``None`` for several kinds that are counted together."""
    return _OF_FAILURE.get((type_, stage)) or _OF_STAGE.get(stage)


def find(text: str) -> Explanation | None:
    """What explains a code, or the name of a type; upper and lower case are alike."""
    wanted = text.strip().strip("[]").lower()
    return next((one for one in ALL if wanted in (one.code.lower(), one.name.lower())), None)
