"""From documents to shards: what is dropped, what is held out, how it becomes tokens, what lies on the disk."""
