"""Losses on held-out documents with their intervals, and the law that past runs teach."""
