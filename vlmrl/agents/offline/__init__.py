"""Learners of recorded data: implicit Q-learning and behaviour cloning, as algorithms of Stable-Baselines3."""
