"""A user's script passes mypy's strict mode without a plugin."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import editloop

SCRIPT = """
from __future__ import annotations

import editloop
from editloop import Bandit, BanditConfig, FitConfig, Message, Record

def words(responses: list[str], edits: list[str]) -> list[float]:
    return [float(len(r) != len(e)) for r, e in zip(responses, edits, strict=True)]

def main(path: str) -> None:
    log = editloop.read_log(path, map="context=prompt,response=draft,edit=final")
    print(editloop.summarize(log).cost_quantiles, len(log))
    own = Record(context=(Message(role="user", content="Hi"),), response="Hello", edit="Hello!")
    tried = {"dpo": {"beta": (0.1, 1)}}
    config = FitConfig(methods=("sft", "dpo"), epochs=1.0, hyperparameters=tried, select="cost")
    print(config.changed({"sft.learning_rate": 1e-4}).trials("sft")[0].name)
    with editloop.show_progress() as callback:
        run = editloop.fit([*log, own], "lab:email", "run", config, callback=callback)
    figures = editloop.evaluate(run, log, drop_seen=True)["policies"]
    print({name: policy["accuracy"] for name, policy in figures.items()}, run.report)
    policy = editloop.load_policy(run, "sft")
    chat = [{"role": "user", "content": "Invite Ada"}]
    print(editloop.evaluate(policy, log), editloop.evaluate("run", log))
    print([sample.text for sample in policy.sample(["Invite Ada", chat], seed=1)])
    bandit = Bandit(["sft", "dpo"], BanditConfig(algorithm="ucb"))
    decision = bandit.decide("response-1")
    bandit.edited("response-1", cost=0.3)
    print(decision.arm, editloop.diagnose(log).advice.method)
    try:
        editloop.load_policy("nowhere", "sft")
    except editloop.RunError as error:
        print(error)
"""
# Other libraries are not checked: it would take a minute, and a user could not change them.
SETTINGS = """
[mypy]
strict = true
[mypy-torch.*,transformers.*,peft.*,accelerate.*,datasets.*,matplotlib.*,scipy.*,pyarrow.*]
follow_imports = skip
"""


def test_a_users_script_is_typed_without_a_plugin(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    (tmp_path / "mypy.ini").write_text(SETTINGS, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--follow-imports=silent", "script.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(Path(editloop.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(editloop.__file__).parent / "py.typed").is_file()
