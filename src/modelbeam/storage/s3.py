"""``s3://``: Amazon S3 and what speaks its language, through boto3's plain requests.

One call of the client is one request: its own retries are off, see :func:`.base.retried`.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from modelbeam.errors import StorageError
from modelbeam.storage import base
from modelbeam.storage.base import FileInfo, PreconditionError, TransientError, settings
from modelbeam.storage.objects import MIB, ObjectStore, Page, Piece, Upload

SMALLEST_PART = 5 * MIB
"""Bytes that S3 wants of every part of an upload but the last."""

LARGEST_COPY = 5 << 30
"""Bytes that S3 copies in one request."""

LARGEST_PART_COPY = 1 << 30

AT_ONCE = 256 * MIB
"""Bytes of parts that are in memory at the same time, at most."""

PARTS = 10_000
"""Parts that an upload may have."""

_BUSY = {
    "InternalError",
    "OperationAborted",
    "ConditionalRequestConflict",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
}
_OPTIONS = (
    "s3_access_key_id",
    "s3_secret_access_key",
    "s3_session_token",
    "s3_endpoint_url",
    "s3_region_name",
    "s3_api_version",
    "s3_verify",
    "s3_disable_ssl",
)
_CREDENTIALS = (
    "Give credentials as the AWS command line takes them (AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, AWS_PROFILE, ~/.aws/credentials, the machine's role), or with "
    "--s3_access_key_id and --s3_secret_access_key"
)


class S3Store(ObjectStore):
    """The objects behind ``s3://`` URLs."""

    scheme = "s3"
    delete_at_once = 1000

    def __init__(self) -> None:
        self._made: tuple[int, Any] = (-1, None)
        self._library()

    @staticmethod
    def _library() -> Any:
        try:
            import boto3
        except ImportError:
            raise StorageError(
                "s3:// needs boto3, which is not installed: pip install 'modelbeam[aws]'."
            ) from None
        return boto3

    @property
    def client(self) -> Any:
        """The client; its methods may be called from any thread."""
        version, client = self._made
        if version != settings.version:
            with settings.lock:
                version, client = self._made
                if version != settings.version:
                    client = self._make_client()
                    self._made = (settings.version, client)
        return client

    def close(self) -> None:
        version, client = self._made
        self._made = (-1, None)
        if version >= 0:
            client.close()

    def _make_client(self) -> Any:
        import os

        from botocore.config import Config

        given = settings.values("S3Options", _OPTIONS)
        config: dict[str, Any] = {}
        endpoint = given["s3_endpoint_url"]
        if endpoint and "AWS_REQUEST_CHECKSUM_CALCULATION" not in os.environ:
            # the newer checksums are not known to all that speak S3's language
            config["request_checksum_calculation"] = "when_required"
            config["response_checksum_validation"] = "when_required"
        verify = given["s3_verify"]
        session = self._library().session.Session()
        client = session.client(
            "s3",
            region_name=given["s3_region_name"],
            api_version=given["s3_api_version"],
            use_ssl=not given["s3_disable_ssl"],
            verify={"false": False, "true": True}.get(str(verify).lower(), verify),
            endpoint_url=endpoint,
            aws_access_key_id=given["s3_access_key_id"],
            aws_secret_access_key=given["s3_secret_access_key"],
            aws_session_token=given["s3_session_token"],
            config=Config(
                connect_timeout=base.CONNECT_SECONDS,
                read_timeout=base.REPLY_SECONDS,
                max_pool_connections=2 * self.parallel,
                retries={"total_max_attempts": 1, "mode": "standard"},
                **config,
            ),
        )
        with contextlib.suppress(ImportError):  # to ask before each PUT is a round trip more
            from botocore.handlers import add_expect_header

            client.meta.events.unregister("before-call.s3", add_expect_header)
        return client

    def _translated(self, error: Exception, url: str) -> Exception:
        from botocore import exceptions
        from urllib3.exceptions import HTTPError

        if isinstance(error, exceptions.ClientError):
            return self._refusal(error, url)
        if isinstance(
            error,
            (
                exceptions.HTTPClientError,
                exceptions.IncompleteReadError,
                exceptions.ResponseStreamingError,
                exceptions.FlexibleChecksumError,
                HTTPError,
                ConnectionError,
                TimeoutError,
            ),
        ):
            return TransientError(f"{type(error).__name__}: {error}")
        if isinstance(error, exceptions.BotoCoreError):
            remedy = f" {_CREDENTIALS}." if "redential" in type(error).__name__ else ""
            return StorageError(f"{url} cannot be reached: {str(error).rstrip('.')}.{remedy}")
        if isinstance(error, ValueError):  # an endpoint that is no URL
            return StorageError(f"{url} cannot be reached: {error}.")
        return error

    def _refusal(self, error: Any, url: str) -> Exception:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        said = error.response.get("Error", {}).get("Message") or code
        said = str(said).rstrip(".")
        bucket = self.name(url).bucket
        if code == "NoSuchBucket":
            return StorageError(
                f"{url}: there is no bucket '{bucket}'. Correct the URL, or make the bucket first."
            )
        if status == 404:
            return FileNotFoundError(errno.ENOENT, "no such object", url)
        if status == 412:
            return PreconditionError(code)
        if code in _BUSY or status in (408, 429) or (status >= 500 and status != 501):
            return TransientError(f"{status} {said}")
        if status in (301, 307, 400) and ("egion" in said or code == "PermanentRedirect"):
            return StorageError(
                f"{url}: the bucket is in another region ({said}). Name it with --s3_region_name "
                f"or AWS_REGION."
            )
        if status in (401, 403) or code in ("InvalidToken", "ExpiredToken"):
            return StorageError(
                f"{url}: S3 does not allow it ({code}: {said}). Reading takes s3:GetObject and "
                f"s3:ListBucket on the bucket '{bucket}', writing also s3:PutObject and "
                f"s3:DeleteObject. {_CREDENTIALS}."
            )
        return StorageError(f"{url}: S3 refuses ({status} {code}: {said}).")

    def _head(self, url: str) -> FileInfo:
        bucket, key = self.name(url)
        if not key:
            raise FileNotFoundError(errno.ENOENT, "no such object", url)
        found = self.client.head_object(Bucket=bucket, Key=key)
        return FileInfo(url, found["ContentLength"], _nanoseconds(found["LastModified"]))

    def _get(self, url: str, start: int, end: int, version: str | None) -> Piece:
        from botocore.exceptions import ClientError

        bucket, key = self.name(url)
        only: dict[str, Any] = {"IfMatch": version} if version else {}
        span = f"bytes={start}-{end - 1}"
        try:
            answer = self.client.get_object(Bucket=bucket, Key=key, Range=span, **only)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 416:
                return Piece(b"", None, None)
            raise
        with answer["Body"] as body:
            data = body.read()
        if len(data) != answer["ContentLength"]:
            raise ConnectionError("the answer was cut short")
        size = int(answer.get("ContentRange", f"/{len(data)}").rpartition("/")[2])
        return Piece(data, size, answer["ETag"])

    def _put(self, url: str, data: Any, once: bool) -> None:
        bucket, key = self.name(url)
        only: dict[str, Any] = {"IfNoneMatch": "*"} if once else {}
        self.client.put_object(Bucket=bucket, Key=key, Body=data, **only)

    def _list(
        self, bucket: str, prefix: str, delimiter: str, token: str | None, limit: int
    ) -> Page:
        more: dict[str, Any] = {"ContinuationToken": token} if token else {}
        if delimiter:
            more["Delimiter"] = delimiter
        answer = self.client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=limit, **more)
        files = [
            FileInfo(self.url(bucket, o["Key"]), o["Size"], _nanoseconds(o["LastModified"]))
            for o in answer.get("Contents", ())
        ]
        prefixes = [self.url(bucket, p["Prefix"]) for p in answer.get("CommonPrefixes", ())]
        return Page(files, prefixes, answer.get("NextContinuationToken"))

    def _copy(self, source: str, target: str, size: int) -> None:
        if size > LARGEST_COPY:
            self.concatenate([(source, size)], target)
            return
        bucket, key = self.name(target)
        origin = _copy_source(self, source)
        self.ask(source, lambda: self.client.copy_object(Bucket=bucket, Key=key, CopySource=origin))

    def _delete(self, bucket: str, keys: list[str]) -> list[str]:
        if len(keys) == 1:
            self.client.delete_object(Bucket=bucket, Key=keys[0])
            return []
        wanted = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        answer = self.client.delete_objects(Bucket=bucket, Delete=wanted)
        again = []
        for failed in answer.get("Errors", ()):
            if failed.get("Code") in _BUSY:
                again.append(failed["Key"])
            elif failed.get("Code") != "NoSuchKey":
                raise StorageError(
                    f"{self.url(bucket, failed['Key'])} cannot be deleted "
                    f"({failed.get('Code')}: {failed.get('Message')}). Writing takes "
                    f"s3:DeleteObject on the bucket '{bucket}'."
                )
        return again

    def upload(self, url: str) -> S3Upload:
        return S3Upload(self, url)

    def concatenate(self, sources: Sequence[tuple[str, int]], target: str) -> None:
        """Have S3 copy what is large enough, and send the rest."""
        parts = plan_parts(sources)
        if len(parts) == 1 and parts[0].copied is None:
            self.write(target, self._fetched(parts[0]))
            return
        upload = self.upload(target)

        def send(numbered: tuple[int, Part]) -> None:
            number, part = numbered
            if part.copied is not None:
                upload.copied_part(number, part.copied)
            else:
                upload.part(number, self._fetched(part))

        try:
            largest = max(part.bytes_sent for part in parts)
            width = max(1, AT_ONCE // max(largest, 1))
            for _ in self.in_parallel(send, enumerate(parts, 1), width):
                pass
            upload.finish(sum(size for _, size in sources))
        except BaseException:
            upload.abort()
            raise

    def _fetched(self, part: Part) -> bytes:
        return b"".join(self.piece(*span).data for span in part.sent)

    def remove_tree(self, path: str) -> None:
        super().remove_tree(path)
        with contextlib.suppress(Exception):  # what killed processes left half sent costs money
            bucket, prefix = self.name(path.rstrip("/") + "/")
            answer = self.client.list_multipart_uploads(Bucket=bucket, Prefix=prefix)
            for left in answer.get("Uploads", ()):
                self.client.abort_multipart_upload(
                    Bucket=bucket, Key=left["Key"], UploadId=left["UploadId"]
                )


class Part(NamedTuple):
    """A part of an object that is put together: copied by S3, or fetched and sent.

    Attributes:
        copied: path, first byte and byte after the last.
        sent: the same of each span that it is made of.
    """

    copied: tuple[str, int, int] | None
    sent: tuple[tuple[str, int, int], ...] = ()

    @property
    def bytes_sent(self) -> int:
        """Bytes that pass through this process."""
        return sum(end - start for _, start, end in self.sent)


def plan_parts(sources: Sequence[tuple[str, int]]) -> list[Part]:
    """Cut files into the parts of one object, such that as little as can be is fetched and sent.

    Every part but the last has S3's smallest size, and there are no more than S3 allows.

    Args:
        sources: path and size of each.
    """
    least = max(SMALLEST_PART, sum(size for _, size in sources) // (PARTS // 4))
    parts: list[Part] = []
    waiting: list[tuple[str, int, int]] = []
    length = 0

    def send() -> None:
        nonlocal length
        if waiting:
            parts.append(Part(None, tuple(waiting)))
            waiting.clear()
        length = 0

    for path, size in sources:
        start = 0
        if waiting and length < least:
            start = min(size, least - length)
            if size - start < least:  # too little is left to be copied
                start = size
            if start:
                waiting.append((path, 0, start))
                length += start
        if length >= least:
            send()
        rest = size - start
        if rest >= least:
            pieces = -(-rest // max(LARGEST_PART_COPY, least))
            cuts = [start + rest * i // pieces for i in range(pieces + 1)]
            parts += [Part((path, a, b)) for a, b in itertools.pairwise(cuts)]
        elif rest:
            waiting.append((path, start, size))
            length += rest
    send()
    return parts or [Part(None)]


class S3Upload(Upload):
    """An upload in parts."""

    def __init__(self, store: S3Store, url: str) -> None:
        self._store, self._url = store, url
        bucket, key = store.name(url)
        self._place: dict[str, Any] = {"Bucket": bucket, "Key": key}
        begun = store.ask(url, lambda: store.client.create_multipart_upload(**self._place))
        self._place["UploadId"] = begun["UploadId"]
        self._tags: dict[int, str] = {}
        self._lock = threading.Lock()

    def part(self, number: int, data: Any) -> None:
        body = bytes(data)
        answer = self._store.ask(
            self._url,
            lambda: self._store.client.upload_part(**self._place, PartNumber=number, Body=body),
        )
        with self._lock:
            self._tags[number] = answer["ETag"]

    def copied_part(self, number: int, span: tuple[str, int, int]) -> None:
        """Have S3 copy a part from another object."""
        path, start, end = span
        more = {
            "CopySource": _copy_source(self._store, path),
            "CopySourceRange": f"bytes={start}-{end - 1}",
        }
        answer = self._store.ask(
            path,
            lambda: self._store.client.upload_part_copy(**self._place, PartNumber=number, **more),
        )
        with self._lock:
            self._tags[number] = answer["CopyPartResult"]["ETag"]

    def finish(self, size: int) -> None:
        parts = [{"PartNumber": n, "ETag": self._tags[n]} for n in sorted(self._tags)]
        try:
            self._store.ask(
                self._url,
                lambda: self._store.client.complete_multipart_upload(
                    **self._place, MultipartUpload={"Parts": parts}
                ),
            )
        except FileNotFoundError:  # no such upload: done already, if the reply was lost
            if self._store.stat(self._url).size != size:
                raise

    def abort(self) -> None:
        with contextlib.suppress(Exception):
            self._store.client.abort_multipart_upload(**self._place)


def _copy_source(store: S3Store, url: str) -> dict[str, str]:
    bucket, key = store.name(url)
    return {"Bucket": bucket, "Key": key}


def _nanoseconds(moment: Any) -> int:
    seconds: float = moment.timestamp()
    microseconds: int = moment.microsecond
    return int(seconds) * 10**9 + microseconds * 1000
