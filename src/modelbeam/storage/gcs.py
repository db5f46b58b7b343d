"""``gs://``: Google Cloud Storage through its JSON API, https://cloud.google.com/storage/docs/json_api.

google-cloud-storage would be a second of import and retries of its own; a dozen requests are all
that is needed. Only google-auth and requests are, which come with ``apache-beam[gcp]``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from modelbeam.errors import StorageError
from modelbeam.storage import base
from modelbeam.storage.base import FileInfo, PreconditionError, TransientError, settings
from modelbeam.storage.objects import ObjectStore, Page, Piece, Upload

COMPOSED = 32
"""Objects that one request puts together."""

_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_TYPE = "application/octet-stream"
_FIELDS = "name,size,timeCreated"
_CREDENTIALS = (
    "Give credentials as Google's tools take them (gcloud auth application-default login, "
    "GOOGLE_APPLICATION_CREDENTIALS, the machine's service account)"
)
_ACCESS = "roles/storage.objectUser (Storage Object User)"


class RefusedError(Exception):
    """An answer that is none of the expected ones.

    Attributes:
        status: of HTTP.
        said: what the answer says.
        reason: its reason in one word.
    """

    def __init__(self, status: int, text: str) -> None:
        said, reason = text.strip()[:200], ""
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, IndexError):
            error = json.loads(text)["error"]
            said = error["message"]
            reason = error["errors"][0]["reason"]
        super().__init__(f"{status} {said}")
        self.status, self.said, self.reason = status, said, reason


class GcsStore(ObjectStore):
    """The objects behind ``gs://`` URLs."""

    scheme = "gs"
    delete_at_once = 100

    def __init__(self) -> None:
        self._made: tuple[int, Any] = (-1, None)
        emulator = os.environ.get("STORAGE_EMULATOR_HOST", "")
        if emulator and "://" not in emulator:
            emulator = f"http://{emulator}"
        self._emulated = bool(emulator)
        self._host = (emulator or "https://storage.googleapis.com").rstrip("/")
        try:
            import google.auth  # noqa: F401
            import requests  # noqa: F401
        except ImportError:
            raise StorageError(
                "gs:// needs google-auth and requests, which are not installed: "
                "pip install 'modelbeam[gcp]'."
            ) from None

    @property
    def session(self) -> Any:
        """Connections with credentials; may be used from any thread."""
        version, session = self._made
        if version != settings.version:
            with settings.lock:
                version, session = self._made
                if version != settings.version:
                    session = self._make_session()
                    self._made = (settings.version, session)
        return session

    def close(self) -> None:
        version, session = self._made
        self._made = (-1, None)
        if version >= 0:
            session.close()

    def _make_session(self) -> Any:
        import requests
        from requests.adapters import HTTPAdapter

        given = settings.values("GoogleCloudOptions", ("no_auth", "impersonate_service_account"))
        if self._emulated or given["no_auth"]:
            session = requests.Session()
        else:
            session = _authorized(given["impersonate_service_account"])
        adapter = HTTPAdapter(pool_connections=4, pool_maxsize=2 * self.parallel)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        return session

    def _request(self, method: str, path: str, *expected: int, **settings: Any) -> Any:
        answer = self.session.request(
            method,
            self._host + path,
            timeout=(base.CONNECT_SECONDS, base.REPLY_SECONDS),
            **settings,
        )
        if answer.status_code not in (expected or (200,)):
            raise RefusedError(answer.status_code, answer.text)
        return answer

    def _object(self, url: str) -> str:
        bucket, key = self.name(url)
        return f"/storage/v1/b/{quote(bucket, safe='')}/o/{quote(key, safe='')}"

    def _translated(self, error: Exception, url: str) -> Exception:
        import requests
        from google.auth import exceptions
        from urllib3.exceptions import HTTPError

        if isinstance(error, RefusedError):
            return self._refusal(error, url)
        if isinstance(error, exceptions.GoogleAuthError):
            if isinstance(error, exceptions.TransportError) or getattr(error, "retryable", False):
                return TransientError(f"{type(error).__name__}: {error}")
            said = str(error).split(". ")[0].rstrip(".")
            return StorageError(f"{url} cannot be reached: {said}. {_CREDENTIALS}.")
        if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema)):
            return StorageError(f"{url} cannot be reached: {error}.")
        if isinstance(error, (requests.RequestException, HTTPError, ConnectionError, TimeoutError)):
            return TransientError(f"{type(error).__name__}: {error}")
        return error

    def _refusal(self, error: RefusedError, url: str) -> Exception:
        bucket, status = self.name(url).bucket, error.status
        said = error.said.rstrip(".")
        if status == 404:
            if "bucket" in said.lower():
                return StorageError(
                    f"{url}: there is no bucket '{bucket}'. Correct the URL, or make the bucket "
                    f"first."
                )
            return FileNotFoundError(errno.ENOENT, "no such object", url)
        if status == 412:
            return PreconditionError(said)
        if status in (408, 429) or (status >= 500 and status != 501) or "rateLimit" in error.reason:
            return TransientError(f"{status} {said}")
        if status in (401, 403):
            return StorageError(
                f"{url}: Google Cloud Storage does not allow it ({status} {said}). It takes "
                f"{_ACCESS} on the bucket '{bucket}', which may also list it. {_CREDENTIALS}."
            )
        return StorageError(f"{url}: Google Cloud Storage refuses ({status} {said}).")

    def _head(self, url: str) -> FileInfo:
        if not self.name(url).key:
            raise FileNotFoundError(errno.ENOENT, "no such object", url)
        answer = self._request("GET", self._object(url), params={"fields": _FIELDS})
        return _info(url, answer.json())

    def _get(self, url: str, start: int, end: int, version: str | None) -> Piece:
        parameters = {"alt": "media"}
        if version:
            parameters["ifGenerationMatch"] = version
        # compressed objects as they are stored: no decoding, there or here
        headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "gzip"}
        answer = self._request(
            "GET",
            "/download" + self._object(url),
            200,
            206,
            416,
            params=parameters,
            headers=headers,
            stream=True,
        )
        with answer:
            if answer.status_code == 416:
                return Piece(b"", None, None)
            data = answer.raw.read(decode_content=False)
        length = answer.headers.get("Content-Length")
        if length is not None and len(data) != int(length):
            raise ConnectionError("the answer was cut short")
        found = answer.headers.get("x-goog-generation")
        if version and found != version:  # not every emulator keeps to the condition
            raise PreconditionError("another generation")
        if answer.status_code == 200:  # the whole of it, whatever was asked
            return Piece(data[start:end], len(data), found)
        size = int(answer.headers["Content-Range"].rpartition("/")[2])
        return Piece(data, size, found)

    def _put(self, url: str, data: Any, once: bool) -> None:
        bucket, key = self.name(url)
        boundary = f"modelbeam-{os.urandom(12).hex()}"
        head = json.dumps({"name": key, "contentType": _TYPE})
        body = (
            f"--{boundary}\r\nContent-Type: application/json\r\n\r\n{head}\r\n"
            f"--{boundary}\r\nContent-Type: {_TYPE}\r\n\r\n"
        )
        parameters = {"uploadType": "multipart", "fields": "name"}
        if once:
            parameters["ifGenerationMatch"] = "0"
        self._request(
            "POST",
            f"/upload/storage/v1/b/{quote(bucket, safe='')}/o",
            params=parameters,
            data=b"".join([body.encode(), data, f"\r\n--{boundary}--\r\n".encode()]),
            headers={"Content-Type": f"multipart/related; boundary={boundary}"},
        )

    def _list(
        self, bucket: str, prefix: str, delimiter: str, token: str | None, limit: int
    ) -> Page:
        parameters = {
            "prefix": prefix,
            "maxResults": str(limit),
            "fields": f"items({_FIELDS}),prefixes,nextPageToken",
        }
        if delimiter:
            parameters["delimiter"] = delimiter
        if token:
            parameters["pageToken"] = token
        path = f"/storage/v1/b/{quote(bucket, safe='')}/o"
        try:
            answer = self._request("GET", path, params=parameters).json()
        except RefusedError as error:
            if error.status == 404:  # whatever the words are: a listing only fails for the bucket
                error.said = "no such bucket"
            raise
        files = [_info(self.url(bucket, o["name"]), o) for o in answer.get("items", ())]
        prefixes = [self.url(bucket, prefix) for prefix in answer.get("prefixes", ())]
        return Page(files, prefixes, answer.get("nextPageToken"))

    def _copy(self, source: str, target: str, size: int) -> None:  # noqa: ARG002
        bucket, key = self.name(target)
        place = f"/rewriteTo/b/{quote(bucket, safe='')}/o/{quote(key, safe='')}"
        token = None
        while True:  # once, but for large objects that change their place or class
            parameters = {"fields": "done,rewriteToken"}
            if token:
                parameters["rewriteToken"] = token
            answer = self.ask(
                source,
                lambda parameters=parameters: self._request(  # type: ignore[misc]
                    "POST", self._object(source) + place, params=parameters
                ).json(),
            )
            token = answer.get("rewriteToken")
            if answer.get("done", True):
                return

    def _delete(self, bucket: str, keys: list[str]) -> list[str]:
        if len(keys) == 1:
            self._request("DELETE", self._object(self.url(bucket, keys[0])), 200, 204, 404)
            return []
        again = []
        for key, status in zip(keys, self._batch_delete(bucket, keys), strict=True):
            if status in (408, 429) or status >= 500:
                again.append(key)
            elif status >= 400 and status != 404:
                raise RefusedError(status, f"deleting {self.url(bucket, key)} was refused")
        return again

    def _batch_delete(self, bucket: str, keys: list[str]) -> list[int]:
        """Many deletions in one request; returns the status of each."""
        boundary = "modelbeam-batch"
        body = ""
        for number, key in enumerate(keys):
            body += (
                f"--{boundary}\r\nContent-Type: application/http\r\n"
                f"Content-Transfer-Encoding: binary\r\nContent-ID: <b+{number}>\r\n\r\n"
                f"DELETE {self._object(self.url(bucket, key))} HTTP/1.1\r\n\r\n\r\n"
            )
        answer = self._request(
            "POST",
            "/batch/storage/v1",
            data=f"{body}--{boundary}--\r\n".encode(),
            headers={"Content-Type": f'multipart/mixed; boundary="{boundary}"'},
        )
        found = dict.fromkeys(range(len(keys)), 500)
        pattern = rb"Content-ID:\s*<response-b\+(\d+)>.*?HTTP/1\.1 (\d{3})"
        for match in re.finditer(pattern, answer.content, re.DOTALL | re.IGNORECASE):
            found[int(match[1])] = int(match[2])
        unnamed = re.findall(rb"^HTTP/1\.1 (\d{3})", answer.content, re.MULTILINE)
        if b"<response-" not in answer.content and len(unnamed) == len(keys):
            return [max(map(int, unnamed))] * len(keys)  # an emulator; whose each is, is not known
        return list(found.values())

    def upload(self, url: str) -> GcsUpload:
        return GcsUpload(self, url)

    def compose(self, sources: Sequence[str], target: str) -> None:
        """Put up to :data:`COMPOSED` objects together."""
        wanted = {
            "sourceObjects": [{"name": self.name(source).key} for source in sources],
            "destination": {"contentType": _TYPE},
        }
        self.ask(
            target,
            lambda: self._request(
                "POST", self._object(target) + "/compose", json=wanted, params={"fields": "name"}
            ),
        )

    def concatenate(self, sources: Sequence[tuple[str, int]], target: str) -> None:
        """Have the store put objects together, in groups and groups of groups."""
        paths = [path for path, size in sources if size]
        if not paths:
            self.write(target, b"")
            return
        made: list[str] = []
        level = 0
        while len(paths) > COMPOSED:
            level += 1
            groups = [paths[at : at + COMPOSED] for at in range(0, len(paths), COMPOSED)]
            paths = [f"{target}.{level}-{number}" for number in range(len(groups))]
            made += paths
            together = list(zip(groups, paths, strict=True))
            for _ in self.in_parallel(lambda pair: self.compose(*pair), together):
                pass
        self.compose(paths, target)
        self.remove(made)


class GcsUpload(Upload):
    """A file sent as several objects, which the store then puts together."""

    def __init__(self, store: GcsStore, url: str) -> None:
        self._store, self._url = store, url
        self._parts: dict[int, int] = {}

    def _part(self, number: int) -> str:
        return f"{self._url}.part-{number:05d}"

    def part(self, number: int, data: Any) -> None:
        self._parts[number] = len(data)
        self._store.write(self._part(number), data)

    def finish(self, size: int) -> None:  # noqa: ARG002
        parts = [(self._part(number), self._parts[number]) for number in sorted(self._parts)]
        self._store.concatenate(parts, self._url)
        self._store.remove([path for path, _ in parts])

    def abort(self) -> None:
        with contextlib.suppress(Exception):
            self._store.remove([self._part(number) for number in self._parts])


def _authorized(impersonated: str | None) -> Any:
    import google.auth
    from google.auth.transport.requests import AuthorizedSession

    credentials, _ = google.auth.default(scopes=[_SCOPE])
    if impersonated:
        from google.auth import impersonated_credentials

        *delegates, principal = impersonated.split(",")
        credentials = impersonated_credentials.Credentials(
            credentials, principal, [_SCOPE], delegates=delegates
        )
    return AuthorizedSession(credentials)


def _info(url: str, found: dict[str, Any]) -> FileInfo:
    moment = datetime.fromisoformat(found["timeCreated"].replace("Z", "+00:00"))
    nanoseconds = int(moment.timestamp()) * 10**9 + moment.microsecond * 1000
    return FileInfo(url, int(found["size"]), nanoseconds)
