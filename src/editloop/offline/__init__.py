"""Learning policies from a log (Eq. 3 to 7): methods, losses, reference pass, cost model, trainer, mixture.

The names are imported when they are first used, so that a configuration needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from editloop.lazy import lazy_getattr

if TYPE_CHECKING:
    from editloop.offline.alarms import SampleCheck, check_samples, raise_alarms
    from editloop.offline.arguments import training_arguments
    from editloop.offline.config import FitConfig, Trial
    from editloop.offline.cost_model.fidelity import Fidelity, fidelity
    from editloop.offline.cost_model.ridge import CostModel, fit_cost_model
    from editloop.offline.evaluation import evaluate
    from editloop.offline.examples import Completions, Example, ExampleSet, make_examples
    from editloop.offline.fitting import fit, plan_fit
    from editloop.offline.logging_policies import LoggedPolicy, log_policies
    from editloop.offline.losses import (
        dpo_loss,
        early_ensemble_loss,
        pairwise_regression_loss,
        preference_margin,
        sft_loss,
        weighted_likelihood_loss,
    )
    from editloop.offline.methods import METHODS, Hyperparameters, Method, hyperparameter
    from editloop.offline.methods.batch import Batch, Layout, pack_completions
    from editloop.offline.mixture import Mixture, mix_by_cost, mix_by_likelihood
    from editloop.offline.reference import Scored, cache_folder, feature_pass, reference_of, reference_pass
    from editloop.offline.rerank import BestOf, Reranked, no_reranking
    from editloop.offline.scoring import Estimate, Scores, score
    from editloop.offline.trainer import EditTrainer

_MODULES = {
    "alarms": ("SampleCheck", "check_samples", "raise_alarms"),
    "arguments": ("training_arguments",),
    "config": ("FitConfig", "Trial"),
    "cost_model.fidelity": ("Fidelity", "fidelity"),
    "cost_model.ridge": ("CostModel", "fit_cost_model"),
    "evaluation": ("evaluate",),
    "examples": ("Completions", "Example", "ExampleSet", "make_examples"),
    "fitting": ("fit", "plan_fit"),
    "logging_policies": ("LoggedPolicy", "log_policies"),
    "losses": (
        "dpo_loss",
        "early_ensemble_loss",
        "pairwise_regression_loss",
        "preference_margin",
        "sft_loss",
        "weighted_likelihood_loss",
    ),
    "methods": ("METHODS", "Hyperparameters", "Method", "hyperparameter"),
    "methods.batch": ("Batch", "Layout", "pack_completions"),
    "mixture": ("Mixture", "mix_by_cost", "mix_by_likelihood"),
    "reference": ("Scored", "cache_folder", "feature_pass", "reference_of", "reference_pass"),
    "rerank": ("BestOf", "Reranked", "no_reranking"),
    "scoring": ("Estimate", "Scores", "score"),
    "trainer": ("EditTrainer",),
}
__getattr__, __dir__ = lazy_getattr(__name__, _MODULES)

__all__ = [
    "METHODS",
    "Batch",
    "BestOf",
    "Completions",
    "CostModel",
    "EditTrainer",
    "Estimate",
    "Example",
    "ExampleSet",
    "Fidelity",
    "FitConfig",
    "Hyperparameters",
    "Layout",
    "LoggedPolicy",
    "Method",
    "Mixture",
    "Reranked",
    "SampleCheck",
    "Scored",
    "Scores",
    "Trial",
    "cache_folder",
    "check_samples",
    "dpo_loss",
    "early_ensemble_loss",
    "evaluate",
    "feature_pass",
    "fidelity",
    "fit",
    "fit_cost_model",
    "hyperparameter",
    "log_policies",
    "make_examples",
    "mix_by_cost",
    "mix_by_likelihood",
    "no_reranking",
    "pack_completions",
    "pairwise_regression_loss",
    "plan_fit",
    "preference_margin",
    "raise_alarms",
    "reference_of",
    "reference_pass",
    "score",
    "sft_loss",
    "training_arguments",
    "weighted_likelihood_loss",
]
