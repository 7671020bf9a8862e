"""Retention: what no champion, rollback or living run needs is told as `files.expired`, and then removed."""
