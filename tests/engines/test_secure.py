"""Brokers that want TLS and a password: the settings are used, and shown nowhere."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from crashing import Command, wait_until
from topics import Topics

from engines.clusters import Kafka
from modelbeam.errors import RequestError

pytestmark = pytest.mark.timeout(200)

PASSWORD, KEY_PASSWORD = "s3cret-of-alice", "s3cret-of-the-key"
SHA = "SCRAM-SHA-512"
_SECURE = "listener.name.secure"
_LOGIN = "org.apache.kafka.common.security.{}LoginModule required"


def certificate(folder: Path, name: str, *password: str) -> None:
    """A certificate that signs itself, and its key."""
    asked = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "2", "-subj",
             "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]  # fmt: skip
    files = ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
    subprocess.run([*asked, *files, *password], check=True, capture_output=True, cwd=folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where certificates are."""
    made = tmp_path_factory.mktemp("secure")
    certificate(made, "broker", "-nodes")
    certificate(made, "client", "-passout", f"pass:{KEY_PASSWORD}")
    return made


@pytest.fixture(scope="module")
def secure(folder: Path) -> Iterator[Kafka]:
    """A broker that is also reached by TLS alone, with the client's certificate and a password."""

    def one_line(path: Path) -> str:
        return "\\n".join(path.read_text().splitlines())

    config = {
        f"{_SECURE}.ssl.keystore.type": "PEM",
        f"{_SECURE}.ssl.keystore.certificate.chain": one_line(folder / "broker.pem"),
        f"{_SECURE}.ssl.keystore.key": one_line(folder / "broker.key"),
        f"{_SECURE}.ssl.truststore.type": "PEM",
        f"{_SECURE}.ssl.truststore.certificates": one_line(folder / "client.pem"),
        f"{_SECURE}.ssl.client.auth": "required",
        f"{_SECURE}.sasl.enabled.mechanisms": f"PLAIN,{SHA}",
        f"{_SECURE}.plain.sasl.jaas.config": (
            f'{_LOGIN.format("plain.Plain")} user_alice="{PASSWORD}";'
        ),
        f"{_SECURE}.{SHA.lower()}.sasl.jaas.config": f"{_LOGIN.format('scram.Scram')};",
    }
    with Kafka(config, listeners={"SECURE": "SASL_SSL"}) as broker:
        admin = AdminClient({"bootstrap.servers": broker.brokers})
        credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        wanted = UserScramCredentialUpsertion("alice", credential, PASSWORD.encode())
        admin.alter_user_scram_credentials([wanted])["alice"].result(30)
        yield broker


def client(folder: Path, mechanism: str, password: str = PASSWORD) -> Path:
    """A file of client settings."""
    path = folder / f"{mechanism}-{len(password)}.properties"
    path.write_text(
        f"security.protocol=SASL_SSL\nssl.ca.location={folder}/broker.pem\n"
        f"ssl.certificate.location={folder}/client.pem\nssl.key.location={folder}/client.key\n"
        f"ssl.key.password={KEY_PASSWORD}\nsasl.mechanism={mechanism}\nsasl.username=alice\n"
        f"sasl.password={password}\n# all that the client library can tell\n"
        f"log_level=7\ndebug=conf,security,broker\n"
    )
    return path


def test_a_run_with_tls_and_a_password_shows_no_secret(secure: Kafka, folder: Path) -> None:
    topics = Topics(secure, "secret")
    topics.send({"x": 1.0}, b"no JSON")
    topics.by(secure.others["SECURE"])
    flags = [*topics.flags(), "--kafka-config", str(client(folder, SHA)), "--json", "-v"]
    flags += ["--metrics-port=0"]
    with Command(*flags, env={}) as command:
        wait_until(lambda: topics.read(topics.output) and topics.read(topics.errors), 60)
        seen = [
            Path(f"/proc/{process}/{what}").read_bytes()
            for process in command.members()
            for what in ("cmdline", "environ")
        ]
        command.process.send_signal(signal.SIGTERM)
        assert command.wait() == 0, command.stderr
    assert json.loads(command.stdout)["counts"] == {"read": 2, "predicted": 1, "failed": 1}
    kept = [one.headers for one in topics.read(topics.output) + topics.read(topics.errors)]
    told = b"".join(seen) + (command.stdout + command.stderr + str(kept)).encode()
    for secret in (PASSWORD, KEY_PASSWORD):
        assert secret.encode() not in told
    run = topics.run(kafka_config=str(client(folder, "PLAIN")))  # by the other mechanism
    assert (run.read, run.description["group"]) == (0, json.loads(command.stdout)["group"])


@pytest.mark.timeout(30)
@pytest.mark.parametrize("mechanism", ["PLAIN", SHA])
def test_a_wrong_password_is_told_soon_and_without_it(
    secure: Kafka, folder: Path, mechanism: str
) -> None:
    topics = Topics(secure, f"wrong-{mechanism.lower()}")
    topics.by(secure.others["SECURE"])
    with pytest.raises(
        RequestError, match=r"does not answer as Kafka does: .*(?i:authentication)"
    ) as told:
        topics.run(kafka_config=str(client(folder, mechanism, "an0ther-secret")))
    assert "an0ther-secret" not in str(told.value)
