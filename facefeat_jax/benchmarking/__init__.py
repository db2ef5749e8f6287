"""`facefeat benchmark`: every stage from encoded pictures to the table of results, timed on this machine.

`stages` holds what is timed, `measure` how, `command` runs the stages one after the other, each in a process of its
own. The comparison with PyTorch (`scripts/lab/benchmarking` of the checkout) takes the stages from here.
"""
