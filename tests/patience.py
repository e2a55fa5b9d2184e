"""How long a test waits for a process."""

# Seconds after which a command counts as hung. Machines under load are slow, not wrong: no test measures time by it.
PATIENCE = 600
