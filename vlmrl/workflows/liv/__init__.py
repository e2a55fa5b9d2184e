"""Makes encoders whose cosines are values, from clips that show how tasks are done."""
