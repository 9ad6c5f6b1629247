"""Learning policies from a log (Eq. 3 to 7): losses, reference pass, cost model, trainer, fit, mixture."""

from editloop.offline.alarms import SampleCheck, check_samples, raise_alarms
from editloop.offline.config import Candidate, FitConfig, Method, make_fit_config
from editloop.offline.cost_model import CostModel, Fidelity, fidelity, fit_cost_model
from editloop.offline.evaluate import evaluate
from editloop.offline.examples import Example, ExampleSet, make_examples
from editloop.offline.fit import fit
from editloop.offline.losses import (
    Reduction,
    dpo_loss,
    early_ensemble_loss,
    pairwise_regression_loss,
    preference_margin,
    sft_loss,
    weighted_likelihood_loss,
)
from editloop.offline.mixture import Mixture, mix_by_cost, mix_by_likelihood
from editloop.offline.reference import Scored, cache_folder, feature_pass, reference_pass
from editloop.offline.score import Estimate, Scores, score
from editloop.offline.trainer import EditTrainer, TrainingBatch, make_batch, method_loss, training_arguments

__all__ = [
    "Candidate",
    "CostModel",
    "EditTrainer",
    "Estimate",
    "Example",
    "ExampleSet",
    "Fidelity",
    "FitConfig",
    "Method",
    "Mixture",
    "Reduction",
    "SampleCheck",
    "Scored",
    "Scores",
    "TrainingBatch",
    "cache_folder",
    "check_samples",
    "dpo_loss",
    "early_ensemble_loss",
    "evaluate",
    "feature_pass",
    "fidelity",
    "fit",
    "fit_cost_model",
    "make_batch",
    "make_examples",
    "make_fit_config",
    "method_loss",
    "mix_by_cost",
    "mix_by_likelihood",
    "pairwise_regression_loss",
    "preference_margin",
    "raise_alarms",
    "reference_pass",
    "score",
    "sft_loss",
    "training_arguments",
    "weighted_likelihood_loss",
]
