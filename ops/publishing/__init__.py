"""Kafka out: followers whose cursor lives in the Kafka transaction of what they send."""
