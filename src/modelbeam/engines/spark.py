"""Spark, through Beam's job server or Spark's own submission server."""

from __future__ import annotations

from modelbeam.engines import portable

preflight = portable.preflight
process_flags = portable.process_flags
describe = portable.describe
submission_error = portable.submission_error
follow = portable.follow
attach = portable.attach
