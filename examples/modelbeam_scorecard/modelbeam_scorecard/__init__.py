"""Scorecards as a kind of model for modelbeam; the entry point names ``KIND``."""

from modelbeam.models import ModelKind

KIND = ModelKind(
    name="scorecard",
    load="modelbeam_scorecard.scorecard:load",
    install="pip install modelbeam-scorecard",
    suffixes=(".scorecard",),
)
