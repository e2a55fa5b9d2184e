"""Asynchronous PPO of sample-factory: many environments, rewards given where steps are taken.

Source: Petrenko et al.: "Sample Factory: Egocentric 3D Control from Pixels at 100000 FPS with Asynchronous
Reinforcement Learning", ICML 2020 (arXiv 2006.11751). The package asks for older releases of numpy and Gymnasium than
the suite, so it lives in an environment of its own, which `make appo` makes. Nothing here imports it before it is used.
"""
