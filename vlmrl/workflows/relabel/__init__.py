"""What `vlmrl.relabel` does."""
