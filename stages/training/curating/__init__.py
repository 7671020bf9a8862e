"""Which documents a run trains on: scored by the champion, cut at both tails, the cut chosen by short trainings."""
