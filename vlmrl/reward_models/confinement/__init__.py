"""A process that can compute and do nothing else, for code that nobody has read.

`worker.py`, `runtime.py` and the layers run in that process, where the package around them is not importable: they
import each other relatively, and beside the standard library only numpy. `process.py` is what the suite talks to.
"""
