"""The cost model (Eq. 5): what it is made of, how it is fitted for a run, and how it is asked afterwards.

`ridge` is the model, on features alone; `tuned` makes features that know the costs; `sampled` has completions
of the reference; `estimates` fits the model and applies it; `preparation` does all of this for a fit; `saved`
keeps the model with the run.
"""
