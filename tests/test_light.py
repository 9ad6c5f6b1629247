"""Without any extra: every public name and every verb works, or says in one line which extra it needs."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import editloop
from blocked import command, python
from editloop.cli import app
from editloop.errors import ConfigError, MissingExtraError
from editloop.extras import EXTRAS, requires
from small_run import make_run

ALL = {module for extra in EXTRAS.values() for module in extra.modules}
PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DISTRIBUTIONS = {
    "prometheus_client": "prometheus-client",
    "sentence_transformers": "sentence-transformers",
    "opentelemetry.sdk": "opentelemetry-sdk",
    "opentelemetry.proto": "opentelemetry-proto",
    "opentelemetry.exporter.otlp.proto.http": "opentelemetry-exporter-otlp-proto-http",
}
BROUGHT_BY_OTHERS = {"starlette"}  # by fastapi

HEAVY_NAMES = {"Policy", "Sample", "evaluate", "fit", "load_base"}
"""The names of the package that need `train`."""

LIGHT_VERBS = {"inspect", "diagnose", "estimate", "export", "import", "split"}


ROOMS = (
    "edits",
    "online",
    "users",
    "policy",
    "offline",
    "lab",
    "theory",
    "diagnosis",
    "autopilot",
    "serve",
    "store",
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of 12 rows."""
    rows = [
        {"context": f"write {i}", "response": "so it is done", "edit": "so it is done " * (i % 2) + "now"}
        for i in range(12)
    ]
    make_run(tmp_path / "run")
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def verbs(group: typer.core.TyperGroup, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every verb of the command."""
    for name, verb in group.commands.items():
        if isinstance(verb, typer.core.TyperGroup):
            yield from verbs(verb, (*before, name))
        else:
            yield (*before, name)


VERBS = list(verbs(typer.main.get_command(app)))  # type: ignore[arg-type]


def test_extras_and_the_projects_metadata_say_the_same() -> None:
    optional = PROJECT["optional-dependencies"]
    assert set(EXTRAS) == set(optional) - {"all", "bench", "dev", "docs"}
    for name, extra in EXTRAS.items():
        brought = " ".join(optional[name])
        for module in set(extra.modules) - BROUGHT_BY_OTHERS:
            assert re.search(rf"\b{re.escape(DISTRIBUTIONS.get(module, module))}\b", brought), (name, module)
    base = {re.split(r"[>=\[]", each)[0] for each in PROJECT["dependencies"]}
    assert not base & {DISTRIBUTIONS.get(module, module) for module in ALL}
    (everything,) = optional["all"]
    assert set(re.findall(r"\[(.*)\]", everything)[0].split(",")) == set(EXTRAS)


def test_every_public_name_is_there_or_names_its_extra() -> None:
    code = """
import editloop
for name in editloop.__all__:
    try:
        getattr(editloop, name)
        print(name, "ok")
    except editloop.MissingExtraError as error:
        print(name, str(error))
"""
    done = python(code, ALL)
    assert done.returncode == 0, done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert set(said) == set(editloop.__all__)
    missing = {name: line for name, line in said.items() if line != "ok"}
    assert set(missing) == HEAVY_NAMES
    assert all(line.endswith("(pip install 'editloop[train]')") for line in missing.values())


def test_every_name_of_a_room_is_there_or_names_its_extra() -> None:
    code = f"""
from importlib import import_module
from editloop import MissingExtraError
for room in {ROOMS!r}:
    try:
        module = import_module("editloop." + room)
        names = module.__all__
    except MissingExtraError as error:
        print(room, error)
        continue
    for name in names:
        try:
            getattr(module, name)
            print(room, "ok")
        except MissingExtraError as error:
            print(room, error)
"""
    done = python(code, ALL)
    assert done.returncode == 0, done.stderr
    said: dict[str, set[str]] = {}
    for line in done.stdout.splitlines():
        room, _, what = line.partition(" ")
        said.setdefault(room, set()).add(what[what.index("[") + 1 : -3] if what != "ok" else "nothing")
    # Which extras the names of each room ask for.
    assert said == {
        "edits": {"nothing"},
        "online": {"nothing"},
        "users": {"nothing"},
        "diagnosis": {"nothing"},
        "policy": {"nothing", "train"},
        "offline": {"nothing", "train"},
        "lab": {"nothing", "train"},
        "theory": {"nothing", "theory"},
        "autopilot": {"nothing", "serve"},
        "serve": {"nothing", "serve"},
        "store": {"nothing", "serve"},
    }


def test_every_verb_shows_its_help() -> None:
    code = f"""
from editloop.cli import main
for verb in {VERBS!r}:
    sys.argv = ["editloop", *verb, "--help"]
    try:
        main()
    except SystemExit as end:
        assert not end.code, verb
"""
    done = python(code, ALL)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: editloop") == len(VERBS)


ARGUMENTS = {
    ("fit",): (["log.jsonl", "--base", "nowhere"], "train"),
    ("sweep",): (["log.jsonl", "--base", "nowhere", "--grid", "seed=0"], "train"),
    ("simulate",): (["."], "train"),
    ("evaluate",): (["run", "log.jsonl"], "train"),
    ("serve",): (["."], "serve"),
    ("demo-real",): ([], "train"),
    ("serve-demo",): ([], "serve"),
    ("autopilot", "run"): ([], "serve"),
    ("autopilot", "status"): ([], "serve"),
    ("autopilot", "pause"): ([], "serve"),
    ("autopilot", "resume"): ([], "serve"),
    ("autopilot", "predict"): (["early@1", "--out", "costs.json"], "serve"),
    ("autopilot", "promote"): (["early@1"], "serve"),
    ("autopilot", "rollback"): (["early@1"], "serve"),
    ("keys", "create"): (["anna"], "serve"),
    ("keys", "list"): ([], "serve"),
    ("keys", "revoke"): (["anna"], "serve"),
    ("demo",): ([], "train"),
    ("theory",): (["rates"], "theory"),
    ("lab", "log"): (["out.jsonl"], "train"),
    ("lab", "pretrain"): ([], "train"),
}
"""How the verbs that need an extra are called, and which extra that is."""

NEEDS_A_SERVER = {("promote",), ("retire",)}


@pytest.mark.parametrize("verb", ARGUMENTS, ids=" ".join)
def test_a_verb_says_in_one_line_which_extra_it_needs(verb: tuple[str, ...], log: Path) -> None:
    arguments, extra = ARGUMENTS[verb]
    done = command([*verb, *arguments], ALL, log.parent)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith("editloop: error: ") and line.endswith(f"(pip install 'editloop[{extra}]')")


def test_every_verb_is_light_or_names_its_extra() -> None:
    assert set(VERBS) == {*ARGUMENTS, *NEEDS_A_SERVER, *((verb,) for verb in LIGHT_VERBS)}


def test_the_light_verbs_work(log: Path) -> None:
    inspected = command(["inspect", "log.jsonl"], ALL, log.parent)
    assert inspected.returncode == 0, inspected.stderr
    assert "12 records" in inspected.stdout
    assert "(pip install 'editloop[plots]')" in " ".join(inspected.stdout.split())
    assert (log.parent / "log-inspect/inspect.json").is_file()
    diagnosed = command(["diagnose", "log.jsonl"], ALL, log.parent)
    assert diagnosed.returncode == 0, diagnosed.stderr
    assert "Train " in diagnosed.stdout
    estimated = command(["estimate", "log.jsonl"], ALL, log.parent)  # of decisions, which this is not
    assert estimated.returncode == 1 and "a policy, a propensity and an edit" in estimated.stderr
    exported = command(["export", "log.jsonl", "--to", "trl-dpo", "--out", "pairs.jsonl"], ALL, log.parent)
    assert exported.returncode == 0, exported.stderr
    assert len((log.parent / "pairs.jsonl").read_text(encoding="utf-8").splitlines()) == 12
    divided = command(["split", "log.jsonl", "--validation", "0.25"], ALL, log.parent)
    assert divided.returncode == 0 and "9 in train.jsonl, 3 in validation.jsonl" in divided.stdout
    asked = command(["retire", "sft@1a2b3c4d", "--server", "http://127.0.0.1:9"], ALL, log.parent)
    assert asked.returncode == 1 and "does not answer" in asked.stderr


CALLS = {
    "editloop.write_log(log, 'out.parquet')": "parquet",
    "editloop.read_log('there.parquet')": "parquet",
    "editloop.read_log('there.jsonl.zst')": "parquet",
    "editloop.write_log(log, 'out', format='dataset')": "datasets",
    "editloop.read_log('s3://bucket/log')": "large",
    "editloop.read_log('postgresql://localhost/edits')": "serve",
    "editloop.get_cost('ter:word/edit')(['a b'], ['b a'])": "ter",
    "editloop.get_cost('semantic:encoder')(['a b'], ['b a'])": "semantic",
    "editloop.RunFolder('run').save_policy('sft', print)": "train",
    "editloop.load_policy('run', 'sft')": "train",
    "from editloop.edits import plot_costs; plot_costs(editloop.summarize(log), 'out')": "plots",
    "from editloop.users import LLMUser, LLMSettings; LLMUser(LLMSettings('m'), 'short')": "llm",
    "from editloop.policy import Encoder": "train",
    "from editloop.store import Store": "serve",
}


def test_library_calls_say_which_extra_they_need(log: Path) -> None:
    (log.parent / "there.parquet").write_bytes(b"PAR1")
    (log.parent / "there.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfd0000")
    code = "import editloop\nlog = editloop.read_log('log.jsonl')\n"
    for call in CALLS:
        code += f"try:\n    {call}\n    print('no error')\n"
        code += "except editloop.MissingExtraError as error:\n    print(error)\n"
    done = python(code, ALL, log.parent)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    ends = [f"(pip install 'editloop[{extra}]')" for extra in CALLS.values()]
    assert [line.endswith(end) for line, end in zip(said, ends, strict=True)] == [True] * len(ends), said


def test_an_error_is_an_import_error_and_one_of_ours() -> None:
    assert issubclass(MissingExtraError, ConfigError) and issubclass(MissingExtraError, ImportError)
    requires("train")  # installed here, so nothing is said
    with pytest.raises(MissingExtraError, match="no_such_module, which is not installed"):
        requires("train", "no_such_module")


def test_a_module_that_no_extra_brings_is_reported_as_it_is() -> None:
    code = "import editloop.lazy as lazy\nget, _ = lazy.lazy_getattr('editloop', {'nowhere': ['name']})\n"
    code += "try:\n    get('name')\nexcept ModuleNotFoundError as error:\n    print(repr(error))\n"
    done = python(code, ALL)
    assert done.stdout == """ModuleNotFoundError("No module named 'editloop.nowhere'")\n""", done.stderr
