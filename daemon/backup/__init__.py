"""Backup and restore: a copy of the journal and of the files that its state needs, taken while the daemon runs."""
