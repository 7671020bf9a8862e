"""Where facts come from: the spool folder and the clock."""
