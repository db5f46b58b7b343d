"""The benchmarks: ``python benchmarks/run.py peers``, ``framework``, ``memory``, ``startup`` …"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import Contestant, Report, Result, Table, clear, compare, output_files, table

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
FEW_ROWS = 100_000
PACKAGES = (
    "modelbeam",
    "apache-beam",
    "daft",
    "duckdb",
    "lightgbm",
    "onnxruntime",
    "orjson",
    "pandas",
    "polars",
    "pyarrow",
    "pyspark",
    "ray",
    "numpy",
    "scikit-learn",
    "xgboost-cpu",
)


@dataclass(frozen=True)
class Setting:
    """What the command line asked for."""

    work: Path
    results: Path
    rows: list[int]
    runs: int
    only: list[str]

    @property
    def model(self) -> Path:
        """The directory of the trained model."""
        return self.work / "model"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of all contestants: they find the model, and none of them phones home."""
        path = [str(HERE / "iris_lr"), os.environ.get("PYTHONPATH", "")]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "IRIS_LR_MODEL": str(self.model),
            "DO_NOT_TRACK": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def train(self) -> None:
        """Train the model with the installed version of scikit-learn."""
        script = HERE / "iris_lr" / "iris_lr.py"
        subprocess.run([sys.executable, script], env=self.environment, check=True)

    def train_scoring(self) -> None:
        """Train those over tables, which are files of their libraries."""
        script = HERE / "iris_lr" / "scoring.py"
        subprocess.run([sys.executable, script], env=self.environment, check=True)

    def source(self, rows: int) -> Path:
        """The input of that many lines, generated when there is none yet.

        A process of its own does it: what this one has imported would count as the memory of
        every process that it starts.
        """
        path = self.work / f"iris-{rows}.jsonl"
        subprocess.run([sys.executable, HERE / "generate.py", str(rows), path], check=True)
        return path

    def table(self, what: str, rows: int) -> Path:
        """The same as ``parquet`` or ``csv``, see ``tables.py``."""
        path = self.work / f"table-{rows}.{what}"
        script = [sys.executable, HERE / "tables.py", what, str(rows), path]
        subprocess.run(script, check=True)
        return path

    def output(self, name: str, suffix: str = ".jsonl") -> Path:
        """Where a contestant writes, in a directory of its own."""
        return self.work / "output" / name / f"predictions{suffix}"

    def wanted(self, contestants: Sequence[Contestant]) -> list[Contestant]:
        """Those that ``--only`` names, or all."""
        keys = list(dict.fromkeys(one.key for one in contestants))
        if unknown := set(self.only).difference(keys):
            raise SystemExit(f"--only {' '.join(sorted(unknown))}: choose from {', '.join(keys)}")
        return [one for one in contestants if not self.only or one.key in self.only]

    def compare(self, contestants: Sequence[Contestant]) -> list[Result]:
        """Measure those that are wanted."""
        return compare(self.wanted(contestants), self.runs, self.environment)

    def finish(
        self,
        name: str,
        title: str,
        tables: Sequence[Table],
        results: Sequence[Result],
        notes: Sequence[str] = (),
    ) -> int:
        """Show and keep what was found; the exit status says whether all runs were good."""
        report = Report(name, title, tables, results, PACKAGES, notes)
        report.show()
        report.save(self.results)
        return int(any(result.error for result in results))


@dataclass(frozen=True)
class Task:
    """One input for a contestant to work on."""

    setting: Setting
    source: Path
    rows: int
    note: str = ""

    @property
    def suffix(self) -> str:
        """Of what is written: CSV and Parquet as they came, all else as JSON Lines."""
        found = self.source.suffix
        return found if found in (".csv", ".parquet") else ".jsonl"

    def modelbeam(self, model: str, *flags: str, key: str = "modelbeam") -> Contestant:
        """Modelbeam with a model of ``iris_lr``."""
        named = ":" in model or "/" in model
        return self.predict([model if named else f"iris_lr:{model}"], *flags, key=key)

    def predict(
        self, models: Sequence[str], *flags: str, key: str, label: str | None = None
    ) -> Contestant:
        """Modelbeam with models as ``--model`` has them; the output is of the input's format."""
        output = self.setting.output(f"{key}-{self.rows}", self.suffix)
        command = [sys.executable, "-m", "modelbeam", "predict"]
        command += [word for model in models for word in ("--model", model)]
        command += ["--input", str(self.source), "--output", str(output), "--overwrite", "-q"]
        label = label or " ".join(["modelbeam", *flags])
        return Contestant(key, label, [*command, *flags], self.rows, output, self.note)

    def peer(self, key: str, script: str, label: str, *arguments: str) -> Contestant:
        """One of the scripts in ``peers/``."""
        output = self.setting.output(f"{key}-{self.rows}", self.suffix)
        command = [sys.executable, str(HERE / "peers" / script), str(self.source), str(output)]
        return Contestant(key, label, [*command, *arguments], self.rows, output, self.note)


def task(setting: Setting, rows: int, note: str = "") -> Task:
    """The task of so many generated lines."""
    return Task(setting, setting.source(rows), rows, note)


def table_contestants(task: Task) -> list[Contestant]:
    """Modelbeam and the peers that work on columns."""
    return [
        task.modelbeam("IrisTable"),
        task.peer("polars", "polars_stream.py", "Polars, streaming"),
        task.peer("daft", "daft_udf.py", "Daft"),
        task.peer("pandas", "pandas_chunks.py", "Pandas, in chunks"),
        task.peer("ray", "ray_data.py", "Ray Data"),
        task.peer("spark", "spark_pandas_udf.py", "Spark, mapInPandas"),
    ]


def beam_contestants(task: Task) -> list[Contestant]:
    """The two ways to write it by hand with Beam."""
    return [
        task.peer("beam-runinference", "beam_runinference.py", "Beam, RunInference"),
        task.peer("beam-records", "beam_records.py", "Beam, a DoFn a record"),
    ]


def peers(setting: Setting) -> int:
    """Compare modelbeam with what else one would use, over the same lines with the same model."""
    rows = setting.rows or [5_000_000]
    few = min(FEW_ROWS, *rows)
    note = f"only {few:,} lines" if few < min(rows) else ""
    contestants = [one for size in rows for one in table_contestants(task(setting, size))]
    contestants += beam_contestants(task(setting, few, note))
    results = setting.compare(contestants)
    return setting.finish("peers", "modelbeam and its peers", [table(results, "polars")], results)


OUTPUTS = {
    "IrisTable": "species",
    "IrisStrings": "species",
    "IrisProbabilities": "probabilities",
    "IrisScore": "score",
}
"""Models that differ in what they return, and what the Polars script writes for each."""


def outputs(setting: Setting) -> int:
    """Compare what models return: a dictionary, NumPy's strings, probabilities, a float32."""
    rows = setting.rows or [5_000_000]
    results: list[Result] = []
    tables: list[Table] = []
    for model, written in OUTPUTS.items():
        made = setting.compare(
            [
                contestant
                for size in rows
                for one in [task(setting, size, model)]
                for contestant in (
                    one.modelbeam(model),
                    one.peer("polars", "polars_stream.py", "Polars, streaming", written),
                )
            ]
        )
        tables.append(table(made, "polars"))
        results += made
    return setting.finish("outputs", "What models return", tables, results)


def shapes(setting: Setting) -> int:
    """Compare modelbeam with a Polars script or a bare loop over data of many shapes."""
    from shapes import SHAPES, source

    train = [sys.executable, HERE / "iris_lr" / "shaped.py"]
    subprocess.run(train, env=setting.environment, check=True)
    contestants: list[Contestant] = []
    for name, shape in SHAPES.items():
        rows = min(setting.rows) if setting.rows else shape.rows
        one = Task(setting, source(shape, rows, setting.work / "shapes"), rows, name)
        script, *arguments = shape.peer
        key = name.replace(", ", "-").replace(" ", "-")
        beam = one.modelbeam(shape.model, *shape.flags, key=key)
        peer = one.peer(f"{key}-peer", script, script.removesuffix(".py"), *arguments)
        contestants += [beam, peer]
    results = setting.compare(contestants)
    ours = [result for result in results if not result.contestant.key.endswith("-peer")]
    peers = {result.contestant.note: result for result in results if result not in ours}
    heading = ["shape", "lines", "modelbeam s", "peer s", "wall / peer", "MB", "peer MB", "peer"]
    lines = [_beside(result, peers[result.contestant.note]) for result in ours]
    return setting.finish("shapes", "Data of many shapes", [[heading, *lines]], results)


def _beside(result: Result, peer: Result) -> list[str]:
    """One shape: modelbeam and its peer."""
    found = [result.contestant.note, f"{result.contestant.rows:,}"]
    if error := result.error or peer.error:
        return [*found, f"ERROR: {error}", *[""] * 4, peer.contestant.label]
    wall, other = result.median("wall"), peer.median("wall")
    memory = [f"{one.median('tree_bytes') / 1e6:,.0f}" for one in (result, peer)]
    seconds = [f"{wall:.2f}", f"{other:.2f}", f"{wall / other:.2f}"]
    return [*found, *seconds, *memory, peer.contestant.label]


PARQUET_PEERS = {
    "loop": "pyarrow and the library, a loop",
    "polars": "Polars, streaming",
    "daft": "Daft",
    "ray": "Ray Data",
    "spark": "Spark, mapInPandas",
}


def parquet(setting: Setting) -> int:
    """Compare modelbeam with its peers: Parquet in, a model of XGBoost, Parquet out.

    The last line is modelbeam over four times as many rows: its memory must not grow with them.
    """
    setting.train_scoring()
    contestants: list[Contestant] = []
    for rows in setting.rows or [2_000_000]:
        one = Task(setting, setting.table("parquet", rows), rows)
        contestants.append(_scored(setting, one, ["xgboost"], "modelbeam"))
        contestants += [
            one.peer(key, f"parquet_{key}.py", label, "xgboost")
            for key, label in PARQUET_PEERS.items()
        ]
    more = 4 * max(one.rows for one in contestants)
    larger = Task(setting, setting.table("parquet", more), more)
    contestants.append(_scored(setting, larger, ["xgboost"], "modelbeam"))
    results = setting.compare(contestants)
    tables = [table(results, _fastest(results))]
    return setting.finish("parquet", "XGBoost over Parquet", tables, results)


def csv(setting: Setting) -> int:
    """Compare modelbeam with Polars and DuckDB: CSV in, a logistic regression, CSV out."""
    contestants: list[Contestant] = []
    for rows in setting.rows or [5_000_000]:
        one = Task(setting, setting.table("csv", rows), rows)
        contestants += [
            one.modelbeam("IrisTable"),
            one.peer("polars", "csv_polars.py", "Polars, streaming"),
            one.peer("duckdb", "csv_duckdb.py", "DuckDB, a function over Arrow"),
        ]
    results = setting.compare(contestants)
    tables = [table(results, _fastest(results))]
    return setting.finish("csv", "CSV to CSV", tables, results)


def libraries(setting: Setting) -> int:
    """Compare modelbeam with LightGBM and ONNX Runtime in a loop: Parquet in, Parquet out."""
    setting.train_scoring()
    rows = min(setting.rows or [2_000_000])
    source = setting.table("parquet", rows)
    results: list[Result] = []
    tables: list[Table] = []
    for name in ("lightgbm", "onnx", "xgboost"):
        one = Task(setting, source, rows)
        made = setting.compare(
            [
                _scored(setting, one, [name], "modelbeam"),
                one.peer("loop", "parquet_loop.py", f"a loop, {name}", name),
            ]
        )
        tables.append(table(made, "loop"))
        results += made
    return setting.finish("libraries", "The same library in a loop", tables, results)


def several(setting: Setting) -> int:
    """Measure what a second model over the same records costs, against the loop that has two."""
    setting.train_scoring()
    rows = min(setting.rows or [2_000_000])
    one = Task(setting, setting.table("parquet", rows), rows)
    pair = ["xgboost", "xgboost-2"]
    contestants = [
        _scored(setting, one, pair[:1], "one"),
        _scored(setting, one, pair, "two"),
        one.peer("loop-one", "parquet_loop.py", "a loop, one model", *pair[:1]),
        one.peer("loop-two", "parquet_loop.py", "a loop, two models", *pair),
    ]
    results = setting.compare(contestants)
    tables = [table(results), _second_model(results)]
    return setting.finish("several", "A second model over the same records", tables, results)


def _second_model(results: Sequence[Result]) -> Table:
    """What two models take more than one: of modelbeam, and of the loop, which only predicts."""
    found = {result.contestant.key: result for result in results if not result.error}
    heading = ["a second model costs", "wall s", "CPU s", "CPU / loop"]
    if not found.keys() >= {"one", "two", "loop-one", "loop-two"}:
        return [heading]
    more = {
        who: [found[two].median(what) - found[one].median(what) for what in ("wall", "cpu")]
        for who, one, two in (("modelbeam", "one", "two"), ("loop", "loop-one", "loop-two"))
    }
    return [
        heading,
        *(
            [who, f"{wall:.2f}", f"{cpu:.2f}", f"{cpu / more['loop'][1]:.2f}"]
            for who, (wall, cpu) in more.items()
        ),
    ]


def _scored(setting: Setting, one: Task, names: Sequence[str], key: str) -> Contestant:
    """Modelbeam with files of trained models, which write id and score."""
    sys.path.insert(0, str(HERE / "iris_lr"))
    from scoring import FEATURES, FILES, PREDICTED

    models = [f"{setting.model / FILES[name]}" for name in names]
    flags = ["--keep", "id"]
    if len(names) > 1:
        models = [f"{name}={model}" for name, model in zip(names, models, strict=True)]
    else:
        flags += ["--rename", f"{PREDICTED[names[0]]}=score"]
    if "onnx" in names:
        flags += ["--features", ",".join(FEATURES)]
    return one.predict(models, *flags, key=key, label=f"modelbeam, {' and '.join(names)}")


def _fastest(results: Sequence[Result]) -> str:
    """The peer that took the least time; the ratios are to it."""
    peers = [one for one in results if one.contestant.key != "modelbeam" and not one.error]
    return min(peers, key=lambda one: one.median("wall")).contestant.key if peers else ""


def framework(setting: Setting) -> int:
    """Compare modelbeam with a bare loop over a model that costs nearly nothing."""
    small = min(setting.rows or [2_000_000])
    large = max(setting.rows) if len(setting.rows) > 1 else 5 * small
    results = setting.compare(
        [one for rows in (small, large) for one in framework_contestants(task(setting, rows))]
    )
    tables = [table(results, "loop"), throughput(results, small, large)]
    return setting.finish("framework", "What the framework costs", tables, results)


def framework_contestants(task: Task) -> list[Contestant]:
    """The loop, and modelbeam with one and with two workers."""
    return [
        task.peer("loop", "bare_loop.py", "bare loop", "iris_lr:NearlyNothing"),
        task.modelbeam("NearlyNothing", "--workers", "1", key="workers-1"),
        task.modelbeam("NearlyNothing", "--workers", "2", key="workers-2"),
    ]


def throughput(results: Sequence[Result], small: int, large: int) -> Table:
    """Lines a second and their ratios to the loop's.

    Of the whole processes over either input, and, since they do not start equally fast, of the
    lines that the larger input has more, in the time that it took more.
    """
    seconds = {
        (result.contestant.key, result.contestant.rows): result.median("wall")
        for result in results
        if not result.error
    }
    labels = {result.contestant.key: result.contestant.label for result in results}
    speeds = {
        key: [
            small / seconds[key, small],
            large / seconds[key, large],
            (large - small) / (seconds[key, large] - seconds[key, small]),
        ]
        for key in labels
        if {(key, small), (key, large)} <= seconds.keys()
    }
    heading = ["lines/s"]
    for name in (f"{small:,} lines", f"{large:,} lines", "marginal"):
        heading += [name, "/ loop"]
    return [heading, *([labels[key], *_speed_cells(speeds, key)] for key in speeds)]


def _speed_cells(speeds: dict[str, list[float]], key: str) -> Iterator[str]:
    """The speeds of one contestant, each followed by its ratio to the loop's."""
    for speed, base in zip(speeds[key], speeds.get("loop", speeds[key]), strict=True):
        yield f"{speed:,.0f}"
        yield f"{speed / base:.2f}" if "loop" in speeds else ""


def memory(setting: Setting) -> int:
    """Measure how modelbeam's memory grows with its input."""
    sizes = setting.rows or [1_000_000, 5_000_000, 20_000_000]
    results = setting.compare([task(setting, rows).modelbeam("IrisTable") for rows in sizes])
    return setting.finish("memory", "Memory", [table(results)], results)


def startup(setting: Setting) -> int:
    """Measure what is spent before the first prediction: the help, and a job of a few lines."""
    little = few_lines(setting)
    contestants = [
        Contestant("help", "modelbeam --help", [sys.executable, "-m", "modelbeam", "--help"]),
        little.modelbeam("IrisRecord"),
        little.peer("beam-records", "beam_records.py", "Beam, a DoFn a record"),
    ]
    results = setting.compare(contestants)
    return setting.finish("startup", "Start-up", [table(results, "beam-records")], results)


def few_lines(setting: Setting) -> Task:
    """The repository's own example input, unless ``--rows`` asks for another."""
    example = REPOSITORY / "data" / "input.json"
    if setting.rows or not example.exists():
        return task(setting, min(setting.rows or [15]))
    return Task(setting, example, len(example.read_text().splitlines()))


def agree(setting: Setting) -> int:
    """Check that all contestants predict the same, which the comparison takes for granted."""
    few = task(setting, min(setting.rows or [FEW_ROWS]))
    expected = species(few.peer("reference", "bare_loop.py", "", "iris_lr:IrisRecord"), setting)
    wrong = 0
    for contestant in setting.wanted(table_contestants(few) + beam_contestants(few)):
        found = species(contestant, setting)
        same = Counter(found) == Counter(expected)
        order = "in the same order" if found == expected else "in another order"
        print(f"{contestant.label}: {f'the same, {order}' if same else 'DIFFERENT'}", flush=True)
        wrong += not same
    return int(wrong > 0)


def species(contestant: Contestant, setting: Setting) -> list[str]:
    """Run a contestant and read what it predicted."""
    output = contestant.output
    assert output is not None
    clear(output)
    with open(setting.work / "log.txt", "wb") as log:
        subprocess.run(
            contestant.command, env=setting.environment, stdout=log, stderr=log, check=True
        )
    lines = [line for file in output_files(output) for line in file.read_text().splitlines()]
    return [json.loads(line)["species"] for line in lines]


def promises(setting: Setting) -> int:
    """Measure what each promise (validation, isolation, manifests, progress) costs.

    Each is switched off by itself, inside a process; no flag does it. See ``promises.py``.
    """
    from modelbeam.local.start import environment

    source = setting.source(min(setting.rows or [1_000_000]))
    command = [sys.executable, HERE / "promises.py", source, str(max(setting.runs, 5))]
    as_a_worker = {**environment(1), **setting.environment}
    done = subprocess.run(command, env=as_a_worker, check=True, stdout=subprocess.PIPE)
    return setting.finish("promises", "What each promise costs", [json.loads(done.stdout)], [])


def errors(setting: Setting) -> int:
    """Measure what failing records cost: one in a million, and all of a million."""
    from errors import measure

    found = measure(setting.source(1_000_000), setting.work, setting.runs, setting.environment)
    return setting.finish("errors", "What failing records cost", [found], [])


def engines(setting: Setting) -> int:
    """Compare the main job on Flink and on Spark with the local run, PySpark and PyFlink.

    Without what the engines need (Java, Maven, Go) it only says so.
    """
    from on_engines import EngineError, compare_engines

    try:
        tables, results, notes = compare_engines(setting)
    except EngineError as error:
        print(f"engines: not measured: {error}", flush=True)
        return 1
    return setting.finish("engines", "The main job on engines", tables, results, notes)


def embeddings(setting: Setting) -> int:
    """Compare the embedding example with ONNX Runtime in a plain loop: 100 thousand texts."""
    model = setting.work / "minilm"
    results: list[Result] = []
    for rows in setting.rows or [100_000]:
        source = setting.work / f"texts-{rows}.jsonl"
        script = [sys.executable, HERE / "embeddings.py", str(rows), source, model]
        subprocess.run(script, check=True)
        output = setting.output(f"embeddings-{rows}")
        command = [sys.executable, "-m", "modelbeam", "predict", "-m", str(model)]
        command += ["--features", "text", "-i", str(source), "-o", str(output), "--keep", "id"]
        command += ["--split-size", "256KB", "--overwrite", "-q"]
        loop = setting.output(f"loop-{rows}")
        peer = [sys.executable, str(HERE / "peers" / "embeddings_loop.py")]
        results += setting.compare(
            [
                Contestant("modelbeam", "modelbeam", command, rows, output),
                Contestant(
                    "loop",
                    "ONNX Runtime, a loop",
                    [*peer, str(source), str(loop), str(model)],
                    rows,
                    loop,
                ),
            ]
        )
    return setting.finish("embeddings", "Embeddings of texts", [table(results, "loop")], results)


def everything(setting: Setting) -> int:
    """Run all of these, one after another."""
    benchmarks = (
        agree,
        peers,
        outputs,
        shapes,
        parquet,
        csv,
        libraries,
        several,
        framework,
        memory,
        startup,
        errors,
        promises,
        embeddings,
        engines,
    )
    return max([benchmark(setting) for benchmark in benchmarks])


BENCHMARKS: dict[str, Callable[[Setting], int]] = {
    "all": everything,
    "agree": agree,
    "peers": peers,
    "outputs": outputs,
    "shapes": shapes,
    "parquet": parquet,
    "csv": csv,
    "libraries": libraries,
    "several": several,
    "framework": framework,
    "memory": memory,
    "startup": startup,
    "errors": errors,
    "promises": promises,
    "embeddings": embeddings,
    "engines": engines,
}


def parse(arguments: Sequence[str]) -> tuple[Callable[[Setting], int], Setting]:
    """Read the command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--rows", type=int, nargs="+", default=[], help="lines of input")
    common.add_argument("--runs", type=int, default=3, help="runs of each contestant")
    common.add_argument("--only", nargs="+", default=[], metavar="KEY", help="these contestants")
    common.add_argument(
        "--work", type=Path, default=REPOSITORY / "build" / "bench", help="for inputs and outputs"
    )
    common.add_argument(
        "--results", type=Path, default=HERE / "results", help="for the tables and figures"
    )
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, benchmark in BENCHMARKS.items():
        command = commands.add_parser(name, parents=[common], help=first_line(benchmark))
        command.set_defaults(benchmark=benchmark)
    given = vars(parser.parse_args(arguments))
    benchmark = given.pop("benchmark")
    return benchmark, Setting(**{**given, "work": given["work"].resolve()})


def first_line(benchmark: Callable[[Setting], int]) -> str:
    """What a benchmark measures, for the help."""
    return (benchmark.__doc__ or "").partition("\n")[0]


def main(arguments: Sequence[str]) -> int:
    """Train the model and run the benchmark that was asked for."""
    benchmark, setting = parse(arguments)
    setting.train()
    return benchmark(setting)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
