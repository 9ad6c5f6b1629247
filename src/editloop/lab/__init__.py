"""The embedded world: domains with hidden styles, their base models, and logs of users who edit.

It lets the demo, the tests and the paper's tables run offline on 2 cores. It does not know how policies
are trained or chosen. The names are imported when they are first used, so that a recipe needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from editloop.lazy import lazy_getattr

if TYPE_CHECKING:
    from editloop.lab.domains import DOMAINS, base_path, free_texts, get_domain
    from editloop.lab.evaluation import Evaluation, evaluate_on_user, evaluate_on_users
    from editloop.lab.free import FreeTexts
    from editloop.lab.grammar import Domain, Source
    from editloop.lab.hub import HubTexts
    from editloop.lab.log import make_log, stream_log
    from editloop.lab.pretraining import Recipe, pretrain, recipe_hash, shipped_recipe
    from editloop.lab.settings import fit_settings
    from editloop.lab.simulation import Round, Simulation, plot_rounds, simulate
    from editloop.lab.templates import Notes
    from editloop.lab.text import pretrain_text
    from editloop.lab.text_recipe import TextRecipe
    from editloop.lab.world import LabDomain, Shifting, World

_MODULES = {
    "domains": ("DOMAINS", "base_path", "free_texts", "get_domain"),
    "evaluation": ("Evaluation", "evaluate_on_user", "evaluate_on_users"),
    "free": ("FreeTexts",),
    "grammar": ("Domain", "Source"),
    "hub": ("HubTexts",),
    "log": ("make_log", "stream_log"),
    "pretraining": ("Recipe", "pretrain", "recipe_hash", "shipped_recipe"),
    "settings": ("fit_settings",),
    "simulation": ("Round", "Simulation", "plot_rounds", "simulate"),
    "templates": ("Notes",),
    "text": ("pretrain_text",),
    "text_recipe": ("TextRecipe",),
    "world": ("LabDomain", "Shifting", "World"),
}
__getattr__, __dir__ = lazy_getattr(__name__, _MODULES)

__all__ = [
    "DOMAINS",
    "Domain",
    "Evaluation",
    "FreeTexts",
    "HubTexts",
    "LabDomain",
    "Notes",
    "Recipe",
    "Round",
    "Shifting",
    "Simulation",
    "Source",
    "TextRecipe",
    "World",
    "base_path",
    "evaluate_on_user",
    "evaluate_on_users",
    "fit_settings",
    "free_texts",
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
