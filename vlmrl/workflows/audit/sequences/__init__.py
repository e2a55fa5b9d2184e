"""Does a reward know what happened in a film, and in which order? Films that the simulator makes, with their truth."""
