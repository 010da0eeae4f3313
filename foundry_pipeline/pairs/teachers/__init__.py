"""Teachers: who writes the chosen side of a pair."""
