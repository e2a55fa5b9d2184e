"""Is a reward any good? Labelled states of a task, scored by rewards before anything is trained on them."""
