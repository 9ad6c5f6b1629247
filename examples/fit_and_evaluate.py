"""Train policies from a log of edits, and find out on held-out edits what each is worth.

    python examples/fit_and_evaluate.py

It needs `pip install 'editloop[train]'`. The log and the base are the lab's: a base model of 600,000 weights
that writes emails, and a user who wants them in a style of their own. With a log of yours `read_log` takes
the place of `make_log`, and the name of a base on the hub that of `lab:email`.
"""

from __future__ import annotations

import editloop
from editloop.lab import evaluate_on_user, fit_settings, get_domain, make_log
from editloop.users import get_user

BASE = "lab:email"

domain = get_domain("email")
user = get_user("strong", domain)  # one who corrects whatever is not in their style
log = make_log(domain, user, 300, 0, policy=editloop.load_base(BASE))
parts = editloop.split(log, validation=0.0, test=0.2)

# What was found to suit this small base; `editloop.FitConfig()` is where to begin with another.
config = fit_settings("email").model_copy(update={"methods": ("sft", "dpo"), "epochs": 4.0})
with editloop.show_progress():
    run = editloop.fit(parts.train, BASE, "run", config)

# On held-out edits: how often is the edit likelier than the response, and by more than under the base?
for name, figures in editloop.evaluate(run, parts.test)["policies"].items():
    accuracy, reference = figures["accuracy"]["mean"], figures["reference_accuracy"]["mean"]
    print(f"{name:8} accuracy {accuracy:.2f}  reference accuracy {reference:.2f}")

# In the lab the user can be asked again: what do the edits of fresh drafts cost?
for name in ("base", *config.methods):
    found = evaluate_on_user(editloop.load_policy(run, name), domain, user, 30, seed=1)
    print(f"{name:8} an edit costs {found.mean:.2f} ± {found.standard_error:.2f}")
