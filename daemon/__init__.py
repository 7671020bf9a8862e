"""The daemon: facts come in, policies decide, stages run, and every transition is recorded."""
