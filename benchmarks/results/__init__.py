"""The tables of docs/results.md: runs them, keeps their figures, writes them. `python -m benchmarks.results --help`."""
