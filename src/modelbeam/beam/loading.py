"""A model on a worker: loaded once a process, for all its threads."""

from __future__ import annotations

from apache_beam.utils.shared import Shared

from modelbeam import models
from modelbeam.beam.private import options_of_this_worker
from modelbeam.job.description import ModelSpec
from modelbeam.job.warm import warm_up
from modelbeam.machine import collector_paused
from modelbeam.models.base import LoadedModel
from modelbeam.storage.base import settings

settings.options_of_this_worker = options_of_this_worker


def acquire(shared: Shared, model: ModelSpec) -> LoadedModel:
    def load() -> LoadedModel:
        with collector_paused():
            loaded = models.load(model.target, model.name, model.arguments, model.options)
            warm_up(loaded.info)
            return loaded

    loaded: LoadedModel = shared.acquire(load, tag=str(model.target))
    return loaded
