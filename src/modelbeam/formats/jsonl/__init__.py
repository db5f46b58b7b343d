"""JSON Lines (also LDJSON, NDJSON), https://jsonlines.org."""
