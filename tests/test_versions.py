"""A worker with other versions than the submission is one clear error."""

from __future__ import annotations

import pickle
import socket
import sys

import pytest

from modelbeam.errors import JobError, WorkerVersionError
from modelbeam.package import versions
from modelbeam.package.versions import compare, digest, here, python_version

EXPECTED = {
    "python": "3.11",
    "apache-beam": "2.77.0",
    "modelbeam": "0.1.0",
    "scikit-learn": "1.9.1",
    "file:churn/model.py": "0123456789abcdef",
}


@pytest.fixture(autouse=True)
def _nothing_remembered():
    versions._found.cache_clear()


def refused(**found: str) -> str:
    """The error for a worker that differs in these."""
    changed = {name.replace("_", "-"): version for name, version in found.items()}
    with pytest.raises(WorkerVersionError) as error:
        compare(EXPECTED, {**EXPECTED, **changed})
    return str(error.value)


def test_this_environment_is_looked_up_by_name():
    found = here(["python", "pytest", "no-such-thing"])
    assert found == {
        "python": python_version(),
        "pytest": pytest.__version__,
        "no-such-thing": "",
    }


def test_files_are_looked_up_where_they_would_be_imported(tmp_path, monkeypatch):
    package = tmp_path / "churned" / "deep"
    package.mkdir(parents=True)
    (package / "w.bin").write_bytes(b"weights")
    (tmp_path / "scored.py").write_bytes(b"pass\n")
    (tmp_path / "scored.json").write_bytes(b"{}")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    wanted = {
        "file:churned/deep/w.bin": digest(b"weights"),
        "file:scored.py": digest(b"pass\n"),
        "file:scored.json": digest(b"{}"),
        "file:churned/other.py": "",
        "file:nowhere/x.py": "",
    }
    assert here(wanted) == wanted


def test_the_same_versions_are_accepted():
    compare(EXPECTED, dict(EXPECTED))
    compare(EXPECTED, {**EXPECTED, "apache-beam": "2.77.1", "more": "1"})
    compare({}, {})


def test_another_version_is_told_with_the_host_and_the_remedy():
    said = refused(scikit_learn="1.4.0")
    assert said.startswith(
        f"the worker on {socket.gethostname()} is not what the job was submitted"
    )
    assert "it has scikit-learn 1.4.0, the submission 1.9.1." in said
    assert "modelbeam package --output" in said


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"python": "3.12"}, "it has Python 3.12, the submission 3.11. Submit from an environment"),
        ({"apache_beam": "2.76.0"}, "it has apache-beam 2.76.0, the submission 2.77.0. Submit"),
        ({"apache_beam": "3.77.0"}, "it has apache-beam 3.77.0"),
        ({"scikit_learn": ""}, "it has no scikit-learn, the submission has 1.9.1"),
        ({"scikit_learn": "1.9.1.post1"}, "it has scikit-learn 1.9.1.post1"),
        ({"file:churn/model.py": "x"}, "its churn/model.py has other contents"),
        ({"file:churn/model.py": ""}, "it has no churn/model.py"),
    ],
)
def test_each_difference_is_said_in_words(found, message):
    assert message in refused(**found)


def test_only_the_first_differences_are_named():
    said = refused(python="3.12", modelbeam="0", scikit_learn="1", **{"file:churn/model.py": ""})
    assert said.count("it has") == 3
    assert "and 1 more" in said


def test_the_error_crosses_processes():
    error = WorkerVersionError("text")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, JobError)
    assert str(again) == "text"
