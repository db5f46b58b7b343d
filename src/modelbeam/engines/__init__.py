"""Where a job runs: one module an engine, and what they have in common.

========================= ======================================================================
:mod:`.options`           Beam's flags: which there are, short names of runners
:mod:`.remote_job`        a job on an engine as the submitting process sees it; submit, attach
:mod:`.causes`            the one paragraph that a worker's failure comes to
:mod:`.flink`, …          one engine each: its defaults, state, metrics, page and cancellation
========================= ======================================================================
"""
