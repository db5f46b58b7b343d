"""Engines as context managers: entered they are ready, left they are gone.

    with FlinkCluster() as flink, WorkerPool() as pool, flink.job_server() as server:
        flags = ["--runner=PortableRunner", f"--job_endpoint={server.endpoint}", *pool.flags]

Every port is a free one. Logs are in ``.directory``, by default a new folder in
``build/engines/runs``.
"""

from __future__ import annotations

import base64
import getpass
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from engines import install
from engines.processes import EngineError, Process, answers, free_port, wait_until

_Self = TypeVar("_Self", bound="Engine")

_OPENED = "lang lang.invoke lang.reflect net io nio text time util util.concurrent"
JAVA = [
    *(f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in _OPENED.split()),
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-exports=java.base/sun.net.util=ALL-UNNAMED",
    f"-Dlog4j.configurationFile={install.HERE / 'log4j2.properties'}",
]
"""What Flink and Spark need of Java 17; their own start scripts say the same."""


def _java() -> list[str | Path]:
    return [install.program("java"), *JAVA]


class Engine:
    """What all have in common: a folder, processes, and being stopped whatever happens.

    Args:
        directory: for logs.

    Attributes:
        scratch: a folder in ``directory`` for whatever else the engine writes; it is removed.
    """

    def __init__(self, directory: Path | None = None) -> None:
        if directory is None:
            runs = install.BUILD / "runs"
            runs.mkdir(parents=True, exist_ok=True)
            directory = Path(tempfile.mkdtemp(prefix=f"{type(self).__name__.lower()}-", dir=runs))
        self.directory = directory.resolve()
        self.scratch = self.directory / "scratch"
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.processes: list[Process] = []

    def __enter__(self: _Self) -> _Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            EngineError: with the end of the log.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """End all of its processes."""
        for process in self.processes:
            process.ask_to_end()
        while self.processes:
            self.processes.pop().stop()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _spawn(self, name: str, command: list[str | Path], **settings: Any) -> Process:
        process = Process(name, command, self.directory / f"{name}.log", **settings)
        self.processes.append(process)
        return process


class JobServer(Engine):
    """Beam's job server for Flink or Spark, for ``--runner=PortableRunner --job_endpoint``.

    Args:
        engine: ``"flink"`` or ``"spark"``.
        master: the cluster; by default one inside the job server.
        directory: for logs.

    Attributes:
        endpoint: ``host:port``.
        events: folder where Spark's driver, which is in the job server, logs each job's events.
        flags: Beam's, to use it.
    """

    def __init__(
        self, engine: str, master: str | None = None, directory: Path | None = None
    ) -> None:
        super().__init__(directory)
        local = {
            "flink": ("--flink-master", "[local]"),
            "spark": ("--spark-master-url", "local[2]"),
        }
        flag, default = local[engine]
        self._engine, self._master = engine, [flag, master or default]
        self.events = self.directory / "events"
        self.endpoint = ""
        self.flags: list[str] = []

    def start(self) -> None:
        """Start it."""
        folder = install.EVERYTHING[self._engine]()
        port = free_port()
        ports = ["--job-port", str(port), "--artifact-port", "0", "--expansion-port", "0"]
        staged: list[str | Path] = ["--artifacts-dir", self.scratch]
        jar: list[str | Path] = ["-jar", folder / "job-server.jar"]
        logged = ["-Dspark.eventLog.enabled=true", f"-Dspark.eventLog.dir={self.events}"]
        command = [*_java(), *logged, *jar, *ports, *staged, *self._master]
        self.events.mkdir(exist_ok=True)
        local = {"SPARK_LOCAL_IP": "127.0.0.1"}
        process = self._spawn(f"{self._engine}-job-server", command, environment=local)
        wait_until(lambda: answers(port), process.name, [process])
        self.endpoint = f"localhost:{port}"
        self.flags = ["--runner=PortableRunner", f"--job_endpoint={self.endpoint}"]


class FlinkCluster(Engine):
    """A standalone Flink: a JobManager and TaskManagers.

    Args:
        slots: of each TaskManager; the cluster's default parallelism is that of all of them.
        taskmanagers: how many.
        config: Flink's own settings beside or instead of ours, by their full names.
        directory: for logs.

    Attributes:
        rest_url: ``http://host:port``.
        master: ``host:port``, for ``--flink_master``.
        job_server_jar: for ``--flink_job_server_jar``.
        jobmanager: its process.
        taskmanagers: their processes; dead ones too.
        flags: Beam's, to submit without a job server: the jar goes to the cluster with the job.
    """

    def __init__(
        self,
        slots: int = 2,
        taskmanagers: int = 2,
        config: Mapping[str, str | int] | None = None,
        directory: Path | None = None,
    ) -> None:
        super().__init__(directory)
        self._slots, self._count, self._config = slots, taskmanagers, config or {}
        self.taskmanagers: list[Process] = []

    def start(self) -> None:
        """Start the JobManager, then the TaskManagers."""
        self._home = install.flink()
        self.job_server_jar = self._home / "job-server.jar"
        port = free_port()
        self.master = f"localhost:{port}"
        self.rest_url = f"http://{self.master}"
        settings: dict[str, str | int] = {
            "jobmanager.rpc.address": "localhost",
            "jobmanager.rpc.port": free_port(),
            "jobmanager.memory.process.size": "2048m",
            "jobmanager.memory.jvm-metaspace.size": "1024m",
            "rest.address": "localhost",
            "rest.port": port,
            "taskmanager.host": "localhost",
            # Beam's classes are loaded again for every job and not all let go
            "taskmanager.memory.process.size": "2048m",
            "taskmanager.memory.jvm-metaspace.size": "1024m",
            "taskmanager.numberOfTaskSlots": self._slots,
            "parallelism.default": self._slots * self._count,
            "io.tmp.dirs": str(self.scratch),
            "heartbeat.interval": 1000,
            "heartbeat.timeout": 10000,  # a killed TaskManager is noticed, not waited for
            **self._config,
        }
        conf = self.directory / "conf" / "config.yaml"
        conf.parent.mkdir(parents=True, exist_ok=True)
        conf.write_text("".join(f"{key}: {json.dumps(settings[key])}\n" for key in settings))
        self.jobmanager = self._spawn(
            "jobmanager",
            self._java(
                ["-Xmx512m"],
                "runtime.entrypoint.StandaloneSessionClusterEntrypoint",
            ),
        )
        wait_until(lambda: "taskmanagers" in self.get("/overview"), "Flink", [self.jobmanager])
        self._memory = self._taskmanager_parameters()
        for _ in range(self._count):
            self._start_taskmanager()
        self._wait_for_taskmanagers()
        jar = f"--flink_job_server_jar={self.job_server_jar}"
        runner = ["--runner=FlinkRunner", f"--flink_master={self.master}"]
        self.flags = [*runner, "--flink_submit_uber_jar", jar]

    def get(self, path: str) -> Any:
        """What Flink's REST API answers, such as ``get("/jobs/overview")``."""
        with urllib.request.urlopen(self.rest_url + path, timeout=10) as answer:
            return json.load(answer)

    def job_server(self) -> JobServer:
        """A job server for this cluster; to be entered."""
        return JobServer("flink", self.master, self.directory / "job-server")

    def replace_taskmanager(self) -> Process:
        """``kill -9`` of the one that lives longest; another one comes in its place.

        Returns:
            The one that was killed.
        """
        oldest = next(process for process in self.taskmanagers if process.alive)
        oldest.kill()
        self._start_taskmanager()
        self._wait_for_taskmanagers()
        return oldest

    def _start_taskmanager(self) -> None:
        java, settings = self._memory
        name = f"taskmanager-{len(self.taskmanagers)}"
        main = "runtime.taskexecutor.TaskManagerRunner"
        identity = f"-Dtaskmanager.resource-id={name}"
        process = self._spawn(name, [*self._java(java, main), *settings, identity])
        self.taskmanagers.append(process)

    def _wait_for_taskmanagers(self) -> None:
        living = [process for process in self.taskmanagers if process.alive]

        def registered() -> bool:
            known = {entry["id"] for entry in self.get("/taskmanagers")["taskmanagers"]}
            return known.issuperset(process.name for process in living)

        wait_until(registered, "Flink", [self.jobmanager, *living])

    def _java(self, options: list[str], main: str) -> list[str | Path]:
        jars = [self._home / "lib" / "*"]
        if main.startswith("runtime.util.bash"):
            jars.append(self._home / "bin" / "bash-java-utils.jar")
        path = ":".join(map(str, jars))
        java = [*_java(), *options, "-cp", path]
        command = "GET_TM_RESOURCE_PARAMS" if len(jars) > 1 else None
        arguments = ["--configDir", str(self.directory / "conf")]
        return [*java, f"org.apache.flink.{main}", *([command] if command else []), *arguments]

    def _taskmanager_parameters(self) -> tuple[list[str], list[str]]:
        """The memory settings that Flink's start script would work out: for Java, and for Flink."""
        process = self._spawn("parameters", self._java([], "runtime.util.bash.BashJavaUtils"))
        process.wait(60)
        mark = "BASH_JAVA_UTILS_EXEC_RESULT:"
        lines = process.log.read_text().splitlines()
        found = [line.split(mark)[1] for line in lines if mark in line]
        self.processes.remove(process)
        if len(found) != 2:
            raise EngineError(f"Flink's BashJavaUtils failed:\n{process.tail()}")
        return shlex.split(found[0]), shlex.split(found[1])


class SparkCluster(Engine):
    """A standalone Spark: a master and workers.

    Args:
        workers: how many.
        cores: of each.
        directory: for logs.

    Attributes:
        master: ``spark://host:port``, for ``--spark_master_url``.
        ui_url: the master's page; ``/json`` is for programs.
        rest_url: for ``--spark_rest_url``.
        job_server_jar: for ``--spark_job_server_jar``.
        workers: their processes.
        flags: Beam's, to submit without a job server: the jar goes to the cluster with the job.
    """

    def __init__(self, workers: int = 1, cores: int = 2, directory: Path | None = None) -> None:
        super().__init__(directory)
        self._count, self._cores = workers, cores
        self.workers: list[Process] = []

    def start(self) -> None:
        """Start the master, then the workers."""
        home = install.spark()
        self.job_server_jar = home / "job-server.jar"
        port, ui, rest = free_port(), free_port(), free_port()
        self.master = f"spark://localhost:{port}"
        self.ui_url, self.rest_url = f"http://localhost:{ui}", f"http://localhost:{rest}"
        java = [*_java(), "-Xmx512m", "-cp", f"{home / 'lib'}/*"]
        place = {
            "environment": {
                "SPARK_HOME": str(home),
                "SPARK_SCALA_VERSION": "2.12",
                "SPARK_LOCAL_IP": "127.0.0.1",
                "SPARK_WORKER_DIR": str(self.directory / "work"),
                "JDK_JAVA_OPTIONS": " ".join(JAVA[:-1]),  # for what the workers start
            },
            "directory": self.directory,
        }
        rests = ["-Dspark.master.rest.enabled=true", f"-Dspark.master.rest.port={rest}"]
        where = ["--host", "localhost", "--port", str(port), "--webui-port", str(ui)]
        main = "org.apache.spark.deploy.master.Master"
        master = self._spawn("master", [*java, *rests, main, *where], **place)
        wait_until(lambda: answers(port) and answers(rest), "Spark", [master])
        for number in range(self._count):
            size = ["--cores", str(self._cores), "--memory", "2g", "--webui-port", "0"]
            main = "org.apache.spark.deploy.worker.Worker"
            command = [*java, main, "--host", "localhost", *size, self.master]
            self.workers.append(self._spawn(f"worker-{number}", command, **place))
        wait_until(lambda: self._living_workers() >= self._count, "Spark", self.processes)
        jar = f"--spark_job_server_jar={self.job_server_jar}"
        runner = ["--runner=SparkRunner", f"--spark_rest_url={self.rest_url}"]
        self.flags = [*runner, "--spark_submit_uber_jar", jar]

    def job_server(self) -> JobServer:
        """A job server for this cluster; to be entered."""
        return JobServer("spark", self.master, self.directory / "job-server")

    def stop(self) -> None:
        """End all of its processes; what its jobs printed stays, their jars go."""
        super().stop()
        for jar in (self.directory / "work").rglob("*.jar"):
            jar.unlink()

    def _living_workers(self) -> int:
        with urllib.request.urlopen(f"{self.ui_url}/json/", timeout=10) as answer:
            workers: int = json.load(answer)["aliveworkers"]
        return workers


class Prism(Engine):
    """Prism, Beam's own portable runner in one process.

    Attributes:
        endpoint: ``host:port``.
        flags: Beam's, to use it.
    """

    def start(self) -> None:
        """Start it."""
        port, web = free_port(), free_port()
        command: list[str | Path] = [install.prism(), f"--job_port={port}", f"--web_port={web}"]
        process = self._spawn("prism", command)
        wait_until(lambda: answers(port), "Prism", [process])
        self.endpoint = f"localhost:{port}"
        self.flags = ["--runner=PortableRunner", f"--job_endpoint={self.endpoint}"]


class Hdfs(Engine):
    """A Hadoop file system: a NameNode with WebHDFS, and a DataNode, empty at the start.

    Args:
        config: Hadoop's own settings beside or instead of ours, by their full names.
        directory: for logs.

    Attributes:
        port: of WebHDFS, on this machine; ``rpc_port`` is that of Hadoop's own protocol.
        user: the superuser.
        namenode: its process, and ``datanode`` the other one.
        flags: Beam's, to use it.
    """

    def __init__(
        self, config: Mapping[str, str | int] | None = None, directory: Path | None = None
    ) -> None:
        super().__init__(directory)
        self.port, self.user = free_port(), getpass.getuser()
        self.rpc_port, self._datanode_port = free_port(), free_port()
        where = ["--hdfs_host=localhost", f"--hdfs_port={self.port}"]
        self.flags = [*where, f"--hdfs_user={self.user}"]
        settings: dict[str, str | int] = {
            "fs.defaultFS": f"hdfs://localhost:{self.rpc_port}",
            "dfs.replication": 1,
            "dfs.namenode.name.dir": str(self.scratch / "name"),
            "dfs.namenode.http-address": f"localhost:{self.port}",
            "dfs.namenode.safemode.extension": 0,
            # a killed DataNode is noticed, and a new one asked soon
            "dfs.heartbeat.interval": 1,
            "dfs.namenode.heartbeat.recheck-interval": 1000,
            # a file's end is not yet known to the NameNode: ask again, by default after 400 ms
            "dfs.client.block.write.locateFollowingBlock.initial.delay.ms": 10,
            "dfs.datanode.data.dir": str(self.scratch / "data"),
            "dfs.datanode.hostname": "localhost",
            "dfs.datanode.address": "localhost:0",
            "dfs.datanode.http.address": f"localhost:{self._datanode_port}",
            "dfs.datanode.ipc.address": "localhost:0",
            **(config or {}),
        }
        self._settings = [f"-D{name}={value}" for name, value in settings.items()]

    def start(self) -> None:
        """Format it, and start both."""
        self._java("format", "namenode.NameNode", "-format").wait(60)
        self.start_namenode()
        self.start_datanode()

    def start_namenode(self) -> None:
        """Start the NameNode, again if it was killed, and wait until it answers."""
        self.namenode = self._java("namenode", "namenode.NameNode")
        wait_until(lambda: bool(self._beans(self.port, "NameNode")), "HDFS", [self.namenode])

    def start_datanode(self) -> None:
        """Start the DataNode, again if it was killed, and wait until the NameNode knows it."""
        self.datanode = self._java("datanode", "datanode.DataNode")

        def known() -> bool:
            return "RUNNING" in json.dumps(self._beans(self._datanode_port, "DataNode"))

        wait_until(known, "HDFS", [self.namenode, self.datanode])

    @staticmethod
    def _beans(port: int, service: str) -> Any:
        """What a process tells of itself, once it has begun to."""
        url = f"http://localhost:{port}/jmx?qry=Hadoop:service={service},name={service}Info"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["beans"]

    def _java(self, name: str, main: str, *arguments: str) -> Process:
        java: list[str | Path] = [install.program("java"), "-Xmx256m", "-XX:+UseSerialGC"]
        main = f"org.apache.hadoop.hdfs.server.{main}"
        java += [
            "-XX:TieredStopAtLevel=1",  # they live for minutes
            f"-Djava.io.tmpdir={self.scratch}",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss,SSS",
            "-cp",
            f"{install.hdfs()}/*",
        ]
        return self._spawn(name, [*java, main, *self._settings, *arguments])


class Kafka(Engine):
    """A Kafka broker that is its own controller (KRaft), without topics at the start.

    A topic that is missing is made by whoever merely asks for it, as Kafka does unless it is told
    otherwise; a command that must not make topics is tested with that. Retention and cleaning look
    every second.

    Args:
        config: Kafka's own settings beside or instead of ours, by their full names.
        directory: for logs.

    Attributes:
        brokers: ``host:port``, for ``bootstrap.servers``.
        process: the broker's; a killed one is started again on the same data by ``start_broker``.
    """

    def __init__(
        self, config: Mapping[str, str | int] | None = None, directory: Path | None = None
    ) -> None:
        super().__init__(directory)
        self._port, controller = free_port(), free_port()
        self.brokers = f"localhost:{self._port}"
        settings: dict[str, str | int] = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@localhost:{controller}",
            "listeners": f"PLAINTEXT://{self.brokers},CONTROLLER://localhost:{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.brokers}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self.scratch / "data"),
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 8,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 8,
            "group.initial.rebalance.delay.ms": 0,
            # a killed broker comes back without waiting for its older self to be given up
            "broker.heartbeat.interval.ms": 500,
            "broker.session.timeout.ms": 2000,
            "controller.quorum.election.timeout.ms": 200,
            "controller.quorum.fetch.timeout.ms": 500,
            "log.retention.check.interval.ms": 1000,
            "log.cleaner.backoff.ms": 500,
            "log.segment.delete.delay.ms": 1000,
            "file.delete.delay.ms": 1000,
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
            **(config or {}),
        }
        self._config = self.directory / "server.properties"
        self._config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))

    def start(self) -> None:
        """Format its storage and start it."""
        cluster = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
        tool = ["kafka.tools.StorageTool", "format", "-t", cluster.replace("-", "x"), "-c"]
        self._java("format", *tool).wait(60)
        self.start_broker()

    def start_broker(self) -> None:
        """Start the broker, again if it was killed, and wait until it answers."""
        self.process = self._java("broker", "kafka.Kafka")
        wait_until(lambda: answers(self._port), "Kafka", [self.process])

    def url(self, topic: str) -> str:
        """A topic as modelbeam's flags name it."""
        return f"kafka://{self.brokers}/{topic}"

    def make_topic(
        self, name: str, partitions: int = 1, config: Mapping[str, str | int] | None = None
    ) -> str:
        """Make a topic; returns its URL."""
        from confluent_kafka.admin import AdminClient, NewTopic

        settings = {key: str(value) for key, value in (config or {}).items()}
        topic = NewTopic(name, partitions, 1, config=settings)
        admin = AdminClient({"bootstrap.servers": self.brokers})
        admin.create_topics([topic])[name].result(30)
        return self.url(name)

    def _java(self, name: str, *main: str) -> Process:
        java: list[str | Path] = [install.program("java"), "-Xmx512m", "-XX:+UseSerialGC"]
        java += ["-XX:TieredStopAtLevel=1"]  # it lives for minutes
        java += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{install.kafka()}/*"]
        return self._spawn(name, [*java, *main, self._config])


class WorkerPool(Engine):
    """Starts Beam's Python workers for an engine that asks for them.

    Args:
        staged: use a Python that has Beam alone, and install what the job brings with it into a
            new environment for each worker, as Beam's containers do. Otherwise the workers
            run in this Python, with what it has.
        directory: for logs.

    Attributes:
        process: the pool's; the workers are among its ``members()``.
        flags: Beam's, to use it.
    """

    def __init__(self, staged: bool = False, directory: Path | None = None) -> None:
        super().__init__(directory)
        self._staged = staged
        self._port = free_port()
        self.flags = [
            "--environment_type=EXTERNAL",
            f"--environment_config=localhost:{self._port}",
        ]

    def start(self) -> None:
        """Start it; again on the same port after ``kill``."""
        self.scratch.mkdir(exist_ok=True)
        python = install.worker_python() if self._staged else Path(sys.executable)
        main = install.HERE / "worker_pool.py"
        command: list[str | Path] = [python, main, f"--service_port={self._port}"]
        if self._staged:
            boot = boot_command(self.scratch, staged=True)
            command.append(f"--container_executable={boot}")
        path = {
            "PATH": f"{python.parent}:{os.environ['PATH']}"
        }  # the pool starts its workers as "python"
        self.process = self._spawn("worker-pool", command, environment=path)
        wait_until(lambda: answers(self._port), self.process.name, [self.process])

    def kill(self) -> None:
        """End the pool and its workers at once, as ``kill -9`` does."""
        self.process.kill()
        self.processes.remove(self.process)


def boot_command(directory: Path, staged: bool = False) -> Path:
    """Write a program that starts a Python worker as Beam's containers do, without one.

    Every worker gets an environment of its own; what the job brings is installed into that. It is
    for ``process_flags`` and for a pool's container.

    Args:
        directory: where the program and the environments go.
        staged: beneath each environment is a Python that has Beam alone, not this one.
    """
    python = install.worker_python() if staged else Path(sys.executable)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.check_output([python, "-c", where], text=True).strip()
    below = f"import site; site.addsitedir({packages!r})"
    folder, boot = shlex.quote(str(directory)), shlex.quote(str(install.boot()))
    command = directory / "boot"
    command.write_text(
        "#!/bin/sh -e\n"
        f"home=$(mktemp -d {folder}/worker-XXXXXX)\n"
        f'{shlex.quote(str(python))} -m venv --without-pip "$home/venv"\n'
        'for packages in "$home"/venv/lib/python*/site-packages; do\n'
        f'  echo {shlex.quote(below)} > "$packages/below.pth"\n'
        "done\n"
        'export PATH="$home/venv/bin:$PATH" RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1\n'
        f'exec {boot} "$@" --semi_persist_dir="$home"\n'
    )
    command.chmod(0o755)
    return command


def process_flags(directory: Path, staged: bool = False) -> list[str]:
    """Beam's flags for workers that the engine starts itself, with ``boot_command``."""
    config = json.dumps({"command": str(boot_command(directory.resolve(), staged))})
    return ["--environment_type=PROCESS", f"--environment_config={config}"]
