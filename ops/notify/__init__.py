"""Webhooks out: each target has a follower of its own that reads the journal and tells it what happened."""
