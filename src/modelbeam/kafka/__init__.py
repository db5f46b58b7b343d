"""Kafka: topics, their records as batches, and lanes from one topic to others.

======================= ==========================================================================
:mod:`.address`         ``kafka://broker:9092/topic``, and files of client settings
:mod:`.cluster`         what there is: brokers, topics, offsets of partitions and of a group
:mod:`.beginning`       where a group without offsets begins
:mod:`.batch`           messages as the batch that models are given
:mod:`.records`         predictions and failures as messages
:mod:`.lane`            consume, predict, and one transaction for predictions, errors and offsets
:mod:`.sending`         splits of files into topics, each in one transaction with a mark
:mod:`.identity`        who a lane is, so that its next self ends what it left open
======================= ==========================================================================

``confluent-kafka`` is imported when it is used: ``pip install 'modelbeam[kafka]'``.
"""
