"""The yaml files that a person reads: one folder a group, one file a choice."""
