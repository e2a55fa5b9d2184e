"""Better reward programs, round by round."""
