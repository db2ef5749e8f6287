"""This project beside PyTorch: every stage from JPEG files to the results table, timed apart, and the whole of it.

A benchmark is a list of cases (`cases`). A case names an operation and who does it: each entry is a process of its own
(`processes`, `worker`), and the processes take turns (`turns`), so that no two ever compute at the same time and a
machine that slows down slows both. `ours` holds this project's operations, which are those of `facefeat benchmark`;
PyTorch's are in `pytorch_baseline`. What was measured is JSON, from which `report` makes the tables.
"""
