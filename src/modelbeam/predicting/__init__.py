"""From a batch to an outcome: predictions, failures, counts. No files, no Beam."""
