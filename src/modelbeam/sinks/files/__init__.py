"""Files as a sink: the commit protocol, by attempts, manifests, publishing and resuming.

Layout of a job's state directory (``_modelbeam`` in the output directory, or ``NAME._modelbeam``
beside a single output file)::

    job.json                what the job is: model, settings, inputs; resuming compares it
    lock                    held by the running process (local files only)
    attempts/KEY-ID.*       what one attempt at a split wrote; ID is unique to the attempt
    manifests/KEY.json      the commit point of a split: it names the attempt that counts
    publish.json            the commit point of the job: which attempts become which shards
    ready/ID/               files made for publishing (errors with whole-file line numbers, …)

A manifest is put in place atomically and names one attempt, so whichever attempt wrote it last
counts, whole; attempts that crashed or came late leave files that nothing names. Publishing is in
:mod:`.publish`. Each step may be repeated after a crash, and done by two processes at once.
"""
