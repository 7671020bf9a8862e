"""Where facts come from: the spool folder, HTTP, the clock and schedules."""
