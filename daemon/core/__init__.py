"""The pure core: values, the fold and the arbitration; no clock, no I/O, no randomness."""
