"""The cost model (Eq. 5), which predicts the cost of a completion that nobody has edited.

`ridge` is the regression on given features, `fidelity` measures it, `tuned` computes features that are
trained on the costs, `sampled` samples completions from the reference, `estimates` fits the regression and
applies it, `preparation` does all of this for a fit, and `saved` writes the model into the run and reads it
again.
"""
