"""Kafka as a source: the journal's cursors say where to read on; a consumer group never does."""
