"""Triggers: conditions on what waits, on time and on signals, which compose; policies ask them."""
