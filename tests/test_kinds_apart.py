"""Each kind of model in a process of its own, as careful mode has it: the same predictions."""

from __future__ import annotations

from pathlib import Path

import pytest
from trained import KINDS, RECORDS

from modelbeam import models
from modelbeam.job.careful import Careful, CarefulModel, Load
from modelbeam.models.target import Target
from modelbeam.testing import predict, written

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_apart_predicts_the_same_and_is_started_again_when_it_is_killed(
    kind: str, tmp_path: Path
) -> None:
    make, options = KINDS[kind]
    path = str(make(tmp_path))
    some = [*RECORDS[:20], {"a": "text"}, *RECORDS[20:60]]
    here = predict(models.load(path, options=options), some)
    load = Load(Target.parse(path), None, {}, options, 1, ())
    apart = CarefulModel(load, Careful(record_timeout=60, crashes_left=0, limit=0))
    try:
        assert apart.info.fingerprint == models.load(path, options=options).info.fingerprint
        for dies in (False, True) if kind == "sklearn" else (False,):
            if dies:  # between two calls, so no record is to blame
                assert apart._child is not None
                apart._child.process.kill()
            there = predict(apart, some)
            assert written(there) == written(here)
            assert [(f.row, f.error) for f in there.failures] == [
                (f.row, f.error) for f in here.failures
            ]
            assert [f.row for f in there.failures] == [20]
    finally:
        apart.close()
    assert apart.blamed == 0
