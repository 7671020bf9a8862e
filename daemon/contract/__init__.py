"""What holds for every policy alike, whatever the state and the fact; checked by asking it many questions."""
