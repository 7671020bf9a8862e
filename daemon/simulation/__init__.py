"""The same core on a virtual clock: what a configuration would make of a history, without a daemon or a journal."""
