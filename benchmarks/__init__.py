"""Side by side: how fast the suite is, as ratios measured within one run. `python -m benchmarks.<name> --help`."""
