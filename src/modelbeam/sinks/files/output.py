"""Where a job writes, what its files are called, and whether it may write there."""

from __future__ import annotations

import re
from dataclasses import dataclass

from modelbeam import storage
from modelbeam.errors import OutputExistsError
from modelbeam.formats import Format, strip_suffix
from modelbeam.storage import join


@dataclass(frozen=True, slots=True)
class Output:
    """Where the job writes: one file, or a directory of shards.

    Attributes:
        path: as it was asked for.
        single: whether it is one file.
        format: of the predictions.
    """

    path: str
    single: bool
    format: Format

    @property
    def _base(self) -> str:
        """A single file's path without its data suffix."""
        return strip_suffix(self.path)

    @property
    def state(self) -> str:
        """The state directory."""
        return f"{self._base}._modelbeam" if self.single else join(self.path, "_modelbeam")

    @property
    def run_file(self) -> str:
        """Where the description of the run goes."""
        return f"{self._base}.run.json" if self.single else join(self.path, "run.json")

    @property
    def profile_file(self) -> str:
        """Where what was collected for the report goes."""
        return f"{self._base}.profile.json" if self.single else join(self.path, "profile.json")

    @property
    def report_file(self) -> str:
        """Where the report goes."""
        return f"{self._base}.report.html" if self.single else join(self.path, "report.html")

    @property
    def errors_file(self) -> str:
        """Where a single file's error lines go."""
        return f"{self._base}.errors.jsonl"

    @property
    def error_lines(self) -> str:
        """Where the error lines of an unfinished run are, as a glob."""
        return join(self.state, "attempts", "*.errors.jsonl")

    @property
    def success_file(self) -> str:
        """The marker that is written last into an output directory."""
        return join(self.path, "_SUCCESS")

    @property
    def own_files(self) -> list[str]:
        """What a single-file job writes, which its own input patterns must not pick up."""
        if not self.single:
            return []
        return [self.path, self.errors_file, self.run_file, self.profile_file, self.report_file]

    def file(self, name: str) -> str:
        """The path of something published, by its name."""
        if not self.single:
            return join(self.path, name)
        folder, slash, _ = self.path.rpartition("/")
        return folder + slash + name

    def name_of(self, path: str) -> str:
        """The name of something published."""
        return path.rpartition("/")[2]

    def shard(self, kind: str, index: int, of: int) -> str:
        """The path of a shard of ``predictions`` or ``errors``."""
        suffix = self.format.suffix if kind == "predictions" else ".jsonl"
        return join(self.path, f"{kind}-{index:05d}-of-{of:05d}{suffix}")

    def published(self) -> list[str]:
        """What an earlier run published here, the marks of success first."""
        if self.single:
            files = [self.run_file, *self.own_files[:2], *self.own_files[3:]]
            return [path for path in files if storage.exists(path)]
        names = storage.names_in(self.path)
        marks = [name for name in ("_SUCCESS", "run.json", *_COMPANIONS) if name in names]
        shards = [name for name in names if _SHARD.fullmatch(name)]
        return [join(self.path, name) for name in marks + shards]

    def unfinished(self) -> bool:
        """Whether there is a run here that has committed something, or died over something."""
        begun = storage.has_files(join(self.state, "manifests"), ".json") or storage.has_files(
            join(self.state, "attempts"), ".begun"
        )
        return begun and storage.exists(join(self.state, "job.json"))

    def committed(self) -> int:
        """How many splits an unfinished run has committed here; lists them all."""
        names = storage.names_in(join(self.state, "manifests"))
        return sum(name.endswith(".json") for name in names)


_COMPANIONS = ("profile.json", "report.html")

_SHARD = re.compile(r"(predictions|errors)-\d{5,}-of-\d{5,}\.[a-z0-9.]+")


def check_output(output: Output, *, resume: bool, overwrite: bool) -> None:
    """Refuse an output that exists, before anything else is done.

    Raises:
        OutputExistsError: there is an output, or an unfinished run, and neither flag was given; or
            what is to be resumed is no run of modelbeam's.
    """
    with storage.asked_for(f"--output {output.path}"):
        _check_output(output, resume, overwrite)


def _check_output(output: Output, resume: bool, overwrite: bool) -> None:
    unfinished = output.unfinished()
    if overwrite or (resume and (unfinished or storage.exists(output.run_file))):
        return
    if unfinished:
        raise OutputExistsError(
            f"--output {output.path} holds an unfinished run ({output.committed()} splits are "
            f"done). Add --resume to finish it, or --overwrite to start again."
        )
    exists = storage.exists(output.path)
    if output.single and exists:
        raise OutputExistsError(
            f"--output {output.path} exists already. Add --overwrite to replace it, or name "
            f"another file."
        )
    others = [n for n in storage.names_in(output.path) if n != "_modelbeam"] if exists else []
    if others or (exists and not storage.is_directory(output.path)):
        raise OutputExistsError(
            f"--output {output.path} exists already and is not empty. Add --overwrite to replace "
            f"the predictions in it, or name another directory."
        )


def remove_state(output: Output) -> None:
    """Remove the state of a finished job.

    The manifests go first: without them nothing is resumed. Then ``publish.json``: without it,
    another process that publishes the same run knows that its files go because all is done.
    """
    storage.remove_tree(join(output.state, "manifests"))
    storage.remove([join(output.state, "publish.json")])
    storage.remove_tree(output.state)
