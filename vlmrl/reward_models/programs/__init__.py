"""Reward programs: asked of a language model, read, checked, and run where they can do nothing but compute."""
