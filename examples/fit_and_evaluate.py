"""Train policies from a log of edits, and evaluate each on held-out edits.

    python examples/fit_and_evaluate.py

It needs `pip install 'editloop[train]'`. The log and the base are the lab's: a base model of 600,000 weights
that writes emails, and a simulated user who wants them in another style. With a log of your own, use
`read_log` in place of `make_log`, and the name of a base on the Hugging Face hub in place of `lab:email`.
"""

from __future__ import annotations

import editloop
from editloop.lab import evaluate_on_user, fit_settings, get_domain, make_log
from editloop.users import get_user

BASE = "lab:email"

domain = get_domain("email")
user = get_user("strong", domain)  # corrects nearly everything that is not in their style
log = make_log(domain, user, 300, 0, policy=editloop.load_base(BASE))
parts = editloop.split(log, validation=0.0, test=0.2)

# These settings were tuned for this small base. With another base, begin with `editloop.FitConfig()`.
config = fit_settings("email").model_copy(update={"methods": ("sft", "dpo"), "epochs": 4.0})
with editloop.show_progress():
    run = editloop.fit(parts.train, BASE, "run", config)

# `accuracy` is how often a policy finds a held-out edit likelier than its response; `reference accuracy` is
# how often it prefers the edit by more than the base does.
for name, figures in editloop.evaluate(run, parts.test)["policies"].items():
    accuracy, reference = figures["accuracy"]["mean"], figures["reference_accuracy"]["mean"]
    print(f"{name:8} accuracy {accuracy:.2f}  reference accuracy {reference:.2f}")

# In the lab the user can edit fresh drafts of every policy, too.
for name in ("base", *config.methods):
    found = evaluate_on_user(editloop.load_policy(run, name), domain, user, 30, seed=1)
    print(f"{name:8} an edit costs {found.mean:.2f} ± {found.standard_error:.2f}")
