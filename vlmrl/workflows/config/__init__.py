"""Settings of the commands: what the yaml files say, checked and typed; one module a command.

The commands hand over plain mappings; behind this door there are dataclasses only. `train_settings` and its like also
read back what `TrainConfig.plain` has written.
"""
