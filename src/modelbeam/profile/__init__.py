"""What a report shows of a run, collected while it runs: fixed in size, whatever the data has.

======================= ==========================================================================
:mod:`.sample`          which records of a split are looked at closely, by their position
:mod:`.cells`           values of any type as what is counted of them
:mod:`.exact`           what is counted of each value of a column
:mod:`.odd`             the records whose predictions stand out
:mod:`.failures`        failures by kind, with examples, along the input
:mod:`.pace`            batches, stages and when they were
:mod:`.split`           all of it, of one split
:mod:`.packed`          how it is stored beside the split's manifest
:mod:`.merge`           of all splits together: ``profile.json``
:mod:`.columns`         one column of it
:mod:`.drift`           the same columns of two runs
======================= ==========================================================================

Whatever is kept of a split depends on its records and their order alone, and is put together in the
order of the splits: a run that was resumed, or was done by other workers in other batches, has the
same profile. Times are the exception.
"""
