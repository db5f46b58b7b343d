"""Whether the first bytes of a file are JSON Lines, or JSON of another shape."""

from __future__ import annotations

import json

import orjson

_ERROR_LINE = {"source", "model", "stage", "type", "error"}


def problem(head: bytes, whole: bool) -> str | None:
    """Why a file is not JSON Lines, and what to do; ``None`` if it may be.

    One bad line is an error line and no reason to refuse a file: it is refused only if what it
    begins with is JSON of another shape.

    Args:
        head: its first bytes, decompressed.
        whole: whether that is all of it.
    """
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    parsed = _parsed(text.partition(b"\n")[0].strip())
    if isinstance(parsed, dict):
        if parsed.keys() >= _ERROR_LINE:
            return (
                "holds error lines of modelbeam; to predict its records again, after the model or "
                "the data was repaired: jq -c .record FILE > again.jsonl"
            )
        return None
    if is_array(head, whole):
        return "is one JSON array, and JSON Lines has an object per line: --input-format json"
    lines = [line.strip() for line in text.split(b"\n")]
    complete = [line for line in (lines if whole else lines[:-1]) if line]
    if text[:1] == b"{" and not any(isinstance(_parsed(line), dict) for line in complete):
        try:
            end = json.JSONDecoder().raw_decode(text.decode("utf-8", "replace"))[1]
        except (ValueError, RecursionError):
            return None
        if b"\n" in text[:end].strip() or text[end : end + 64].lstrip(b" \t\r,")[:1] == b"{":
            shape = "over several lines" if b"\n" in text[:end] else "several on a line"
            return (
                f"holds JSON objects {shape}, and JSON Lines has one per line: "
                f"jq -c . FILE > lines.jsonl"
            )
    return None


def is_array(head: bytes, whole: bool) -> bool:
    """Whether a file is one array, not lines of which the first is none of an object.

    Args:
        head: its first bytes, decompressed.
        whole: whether that is all of it.
    """
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] != b"[":
        return False
    lines = [line for line in map(bytes.strip, text.split(b"\n")) if line]
    complete = lines if whole else lines[:-1]
    parsed = _parsed(complete[0]) if complete else None
    if isinstance(parsed, list):  # the first line by itself: a bad record if others follow it
        return whole and len(complete) == 1 and (not parsed or isinstance(parsed[0], dict))
    objects = sum(isinstance(_parsed(line), dict) for line in complete)
    elements = sum(
        line.endswith(b",") and isinstance(_parsed(line.rstrip(b", ")), dict) for line in complete
    )
    return elements >= objects


def _parsed(line: bytes) -> object:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
