"""A Kafka cluster, as everyone sees it who reads it, writes to it or looks after it."""
