"""The embedded world: domains with hidden styles, their base models, and logs of users who edit.

It lets the demo, the tests and the paper's tables run offline on 2 cores. It does not know how policies
are trained or chosen.
"""

from __future__ import annotations

from editloop.lab.domains import DOMAINS, base_path, get_domain
from editloop.lab.evaluation import Evaluation, evaluate_on_user, evaluate_on_users
from editloop.lab.grammar import Domain, Notes, Source
from editloop.lab.hub import HubTexts
from editloop.lab.log import World, make_log, stream_log
from editloop.lab.pretrain import Recipe, pretrain, recipe_hash, shipped_recipe
from editloop.lab.settings import fit_settings
from editloop.lab.simulation import Round, Simulation, plot_rounds, simulate
from editloop.lab.text import TextRecipe, pretrain_text

__all__ = [
    "DOMAINS",
    "Domain",
    "Evaluation",
    "HubTexts",
    "Notes",
    "Recipe",
    "Round",
    "Simulation",
    "Source",
    "TextRecipe",
    "World",
    "base_path",
    "evaluate_on_user",
    "evaluate_on_users",
    "fit_settings",
    "get_domain",
    "make_log",
    "plot_rounds",
    "pretrain",
    "pretrain_text",
    "recipe_hash",
    "shipped_recipe",
    "simulate",
    "stream_log",
]
