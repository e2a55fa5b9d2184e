"""Environments, tasks, frames and the wrappers that put rewards in."""

from vlmrl.envs.gl import choose_backend

choose_backend()  # before anything imports mujoco, which reads the choice only then
