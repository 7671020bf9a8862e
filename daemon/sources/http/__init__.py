"""HTTP: events come in by `POST /events`, and the state, the runs and their stories are read."""
