"""Records for pipelines on engines that go on coming until what is waited for has happened."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.io.watermark_estimators import WalltimeWatermarkEstimator
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Duration

TURNS = 1 << 30
_PAUSE = 0.1


class _Turns(beam.RestrictionProvider):
    """How often it is looked whether it is over."""

    def initial_restriction(self, element: Any) -> OffsetRange:  # noqa: ARG002
        """All of them."""
        return OffsetRange(0, TURNS)

    def create_tracker(self, restriction: OffsetRange) -> OffsetRestrictionTracker:
        """Beam's own."""
        return OffsetRestrictionTracker(restriction)

    def restriction_size(self, element: Any, restriction: OffsetRange) -> int:  # noqa: ARG002
        """One turn is as long as any other."""
        return 1


_TURN = beam.DoFn.RestrictionParam(_Turns())
_NOW = beam.DoFn.WatermarkEstimatorParam(WalltimeWatermarkEstimator.default_provider())


class Unending(beam.DoFn):
    """Yields a record in each turn, and ends once the file exists that its element names."""

    @beam.DoFn.unbounded_per_element()
    def process(self, element: str, tracker: Any = _TURN, _watermark: Any = _NOW) -> Iterator[Any]:
        """Take a turn."""
        if not tracker.try_claim(tracker.current_restriction().start):
            return
        yield TimestampedValue({"x": 1.0}, time.time())
        time.sleep(_PAUSE)
        if Path(element).exists():
            tracker.try_claim(TURNS - 1)
        else:
            tracker.defer_remainder(Duration(1))


class Touch(beam.DoFn):
    """Makes a file once something comes."""

    def __init__(self, path: str) -> None:
        """Of that path."""
        self._path = path

    def process(self, element: Any) -> Iterator[Any]:
        """Make it, and pass on what came."""
        Path(self._path).touch()
        yield element
