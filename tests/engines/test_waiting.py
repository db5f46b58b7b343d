"""``Predict(max_wait=…)`` on an engine: records wait in its state, and its timers end that."""

from __future__ import annotations

import sys
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing import test_stream
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, GlobalWindows, TimestampedValue

import modelbeam
from engines.clusters import Prism, WorkerPool

pytestmark = [pytest.mark.timeout(200), pytest.mark.filterwarnings("ignore")]

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))

from unending import Touch, Unending  # noqa: E402


def test_records_wait_in_the_engines_state_for_a_batch_of_their_window(
    prism: Prism, pool: WorkerPool
) -> None:
    """Each element of the stream is a bundle of its own; sizes are those of the model's calls."""
    stream = test_stream.TestStream().advance_watermark_to(0)
    for second in range(1, 8):
        stream = stream.add_elements([TimestampedValue({"x": 1.0}, second)])
    options = PipelineOptions([*prism.flags, *pool.flags, "--streaming"])
    with beam.Pipeline(options=options) as pipeline:
        made = (
            pipeline
            | stream.advance_watermark_to_infinity()
            | beam.WindowInto(FixedWindows(10))
            | modelbeam.Predict("cli_models:BatchSizes", batch_size=3, max_wait=3600)
        )
        sizes = made.predictions | beam.Map(lambda one: one["size"])
        everywhere = sizes | "All" >> beam.WindowInto(GlobalWindows())
        assert_that(everywhere, equal_to([3] * 6 + [1]))


def test_a_record_does_not_wait_longer_than_it_may(
    prism: Prism, pool: WorkerPool, tmp_path: Path
) -> None:
    """The stream, and so its window, ends only after some records were predicted."""
    seen = str(tmp_path / "seen")
    options = PipelineOptions([*prism.flags, *pool.flags, "--streaming"])
    with beam.Pipeline(options=options) as pipeline:
        made = (
            pipeline
            | beam.Create([seen])
            | beam.ParDo(Unending())
            | modelbeam.Predict("cli_models:BatchSizes", batch_size=1 << 20, max_wait=0.5)
        )
        made.predictions | beam.ParDo(Touch(seen))
    assert Path(seen).exists()
