"""The training itself: steps and what guards them, what is saved, and the processes that share it."""
