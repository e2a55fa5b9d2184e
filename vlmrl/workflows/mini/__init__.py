"""Trains the embedded encoder: renders frames, writes captions from geometry, fits an open_clip model, measures it."""
