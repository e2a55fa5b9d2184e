"""Fitting of a video-text model: clips, captions, objective."""
