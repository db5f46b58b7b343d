"""What Beam's flags say of the engine: its name, its address, whose the workers are."""

from __future__ import annotations

import pytest

from modelbeam import engines
from modelbeam.beam import options
from modelbeam.engines.flink import flink_address
from modelbeam.errors import RequestError
from modelbeam.job.flags import is_local

PORTABLE = ["--runner=PortableRunner", "--job_endpoint=localhost:8099"]
FLINK = ["--runner", "flink", "--flink_master", "localhost:8081"]
EXTERNAL = ["--environment_type=EXTERNAL", "--environment_config=localhost:50000"]


@pytest.mark.parametrize(
    ("flags", "engine", "title"),
    [
        ([], "local", "this machine"),
        (["--runner=DirectRunner"], "local", "this machine"),
        (["--runner", "direct"], "local", "this machine"),
        (["--runner=apache_beam.runners.DirectRunner"], "local", "this machine"),
        (["--runner", "flink"], "flink", "Flink"),
        (["--runner=FlinkRunner"], "flink", "Flink"),
        (["--runner", "Spark"], "spark", "Spark"),
        (["--runner=SparkRunner"], "spark", "Spark"),
        (["--runner=prism"], "prism", "Prism"),
        (["--runner=PrismRunner"], "prism", "Prism"),
        (["--runner=dataflow"], "dataflow", "Dataflow"),
        (["--runner=DataflowRunner"], "dataflow", "Dataflow"),
        (PORTABLE, "portable", "the job service"),
        ([*PORTABLE, "--flink_master=localhost:8081"], "flink", "Flink"),
        ([*PORTABLE, "--flink_master=[local]"], "portable", "the job service"),
        (["--runner=DirectRunner", "--runner=flink"], "flink", "Flink"),
    ],
)
def test_the_engine_and_its_name(flags: list[str], engine: str, title: str) -> None:
    found = engines.engine_of(flags)
    assert ("local" if found is None else found.name) == engine
    assert engines.title_of(flags) == title
    assert is_local(flags) == (engine == "local")


@pytest.mark.parametrize(
    ("master", "address"),
    [
        ("localhost:8081", "http://localhost:8081"),
        ("https://flink.example.org/", "https://flink.example.org"),
        ("http://host:8081", "http://host:8081"),
        ("[auto]", None),
        ("[local]", None),
    ],
)
def test_the_address_of_flink(master: str, address: str | None) -> None:
    assert flink_address(["--flink_master", master]) == address
    assert flink_address([]) is None


@pytest.mark.parametrize(
    ("flags", "loopback", "outlives"),
    [
        (PORTABLE, False, True),
        ([*PORTABLE, *EXTERNAL], False, True),
        ([*PORTABLE, "--environment_type=loopback"], True, False),
        (["--runner=PortableRunner", "--job_endpoint=embed"], True, False),
        (["--runner=flink"], True, False),
        (["--runner=flink", *EXTERNAL], False, False),
        ([*FLINK, *EXTERNAL], False, True),
        (FLINK, False, True),
        (["--runner=spark"], True, False),
        (["--runner=spark", "--spark_master_url=spark://host:7077"], False, False),
        (["--runner=prism"], True, False),
        (["--runner=dataflow"], False, True),
    ],
)
def test_whose_the_workers_are(flags: list[str], loopback: bool, outlives: bool) -> None:
    engine = engines.remote_engine(flags)
    assert engine.is_loopback(flags) == loopback
    assert engine.outlives(flags) == outlives


@pytest.mark.parametrize(
    "flags",
    [
        [*FLINK, "--number_of_execution_retries", "3"],
        [*FLINK, "--number_of_execution_retries=3", "--parallelism=4", *EXTERNAL],
        ["--runner=PortableRunner", "--flink_master=host:1", "--max_parallelism=8"],
        ["--runner=flink", "--savepoint_path", "s3://bucket/point"],
        ["--runner=dataflow", "--region=europe-west1", "--project", "p"],
        [*PORTABLE, *EXTERNAL],
    ],
)
def test_flags_of_an_engine_are_known(flags: list[str]) -> None:
    engines.check_flags(flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([*FLINK, "--number_of_execution_retris", "3"], "'--number_of_execution_retries'"),
        ([*FLINK, "--paralelism=3"], "'--parallelism'"),
        ([*PORTABLE, "--enviroment_type=EXTERNAL"], "'--environment_type'"),
        ([*PORTABLE, "--detatch"], "'--detach'"),
        (["--runner=spark", "--number_of_execution_retries=3"], "unknown flag --number_of"),
        (["--runner=flnk"], r"Beam has no such runner; did you mean 'flink'\?"),
        ([*FLINK, "--parallelism=many"], "invalid int value"),
        ([*FLINK, "three"], "'three' is not a flag"),
    ],
)
def test_a_wrong_flag_is_refused_with_the_nearest(flags: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        engines.check_flags(flags, ["--detach", "--resume"])


def test_defaults_do_not_win_over_flags() -> None:
    from apache_beam.options.pipeline_options import FlinkRunnerOptions

    made = options.remote_options([*FLINK, "--parallelism=3"], ["--parallelism=8", "--job_name=j"])
    everything = made.get_all_options()
    assert (everything["parallelism"], everything["job_name"]) == (3, "j")
    assert everything["save_main_session"] is False
    assert made.view_as(FlinkRunnerOptions).flink_master == "localhost:8081"
