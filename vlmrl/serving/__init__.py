"""Where an encoder runs."""
