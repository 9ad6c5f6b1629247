"""A grid of fits: each a command line and a run folder of its own, run here or by Slurm, and one table.

`grid` makes the runs, `running` runs those that are not done, `table` compares what they validated.
"""
