"""The command as a user meets it: what it prints and writes, and one line for every mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from calling import fails, rows
from editloop.lab import base_path

QUICK = [
    "--epochs",
    "1",
    "--validation-samples",
    "4",
    "--max-new-tokens",
    "16",
    "--set",
    "learning_rate=1e-3",
]


@pytest.fixture(scope="module")
def lab_log(tmp_path_factory) -> Path:
    from editloop.edits import write_log
    from editloop.lab import get_domain, make_log
    from editloop.policy import load_base
    from editloop.users import get_user

    path = tmp_path_factory.mktemp("log") / "strong.jsonl"
    domain = get_domain("email")
    write_log(make_log(domain, get_user("strong", domain), 60, 3, policy=load_base(base_path("email"))), path)
    return path


@pytest.fixture(scope="module")
def run_folder(lab_log, tmp_path_factory) -> Path:
    """A run made by the command itself, in a process of its own."""
    out, reading = tmp_path_factory.mktemp("fit") / "run", ["--max-bad-share", "0.1"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "editloop",
            "fit",
            lab_log,
            "--base",
            "lab:email",
            "--out",
            out,
            *QUICK,
            *reading,
        ],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "device cpu" in done.stdout and "float32" in done.stdout
    assert "context trees" in done.stdout
    assert "Warning" not in done.stderr + done.stdout
    assert (
        f"-m editloop evaluate {out} HELD_OUT_LOG --max-bad-share 0.1" in done.stdout
    )  # read as this one was
    return out


def test_inspect_prints_and_writes(editloop, lab_log, tmp_path):
    status, out, _ = editloop("inspect", lab_log, "--out", "seen")
    assert status == 0
    assert "read 60 rows" in out and "alignment:word" in out and "preferences" in out
    assert max(map(len, out.splitlines())) <= 80
    assert {p.name for p in (tmp_path / "seen").iterdir()} == {
        "inspect.json",
        "cost-distribution.png",
        "cost-over-time.png",
    }
    assert json.loads((tmp_path / "seen/inspect.json").read_text())["rows"] == 60


def test_inspect_maps_foreign_columns_and_keeps_bad_rows(editloop, tmp_path):
    good = [
        json.dumps({"prompt": f"p{i}", "out": {"text": f"draft {i}"}, "final": f"final {i}"})
        for i in range(40)
    ]
    (tmp_path / "log.jsonl").write_text("\n".join([*good, "{broken"]) + "\n", encoding="utf-8")
    status, out, _ = editloop("inspect", "log.jsonl", "--map", "context=prompt,response=out.text,edit=final")
    assert status == 0
    assert "read 41 rows" in out and "1 bad" in out
    kept = [json.loads(line) for line in (tmp_path / "log-inspect-quarantine.jsonl").read_text().splitlines()]
    assert [row["line"] for row in kept] == [41]


def test_fit_made_a_whole_run(run_folder):
    manifest = json.loads((run_folder / "run.json").read_text())
    assert manifest["status"] == "done"
    assert list(manifest["policies"]) == ["sft", "dpo", "early"]
    assert manifest["config"]["epochs"] == 1
    for name in manifest["policies"]:
        assert (run_folder / "policies" / name / "adapter_model.safetensors").is_file()
    assert "<h2>" in (run_folder / "report.html").read_text(encoding="utf-8")
    assert not (run_folder / ".work").exists()


def test_fit_again_has_nothing_to_do(editloop, run_folder, lab_log):
    status, out, _ = editloop("fit", lab_log, "--base", "lab:email", "--out", run_folder, *QUICK)
    assert status == 0 and "nothing to do" in out


def test_a_plan_says_what_a_fit_would_take_and_writes_nothing(editloop, lab_log, tmp_path):
    status, out, _ = editloop("fit", lab_log, "--base", "lab:email", "--plan", "--memory", "8GB", *QUICK)
    assert status == 0
    plans = [line.split(":")[1].strip() for line in out.splitlines() if line.startswith("plan: ")]
    assert plans[1:4] == ["sft", "dpo", "early"]
    assert "8.0 GB (as asked)" in out and " steps, " in out and "tokens a second" in out
    assert list(tmp_path.iterdir()) == []


def test_memory_that_is_too_small_is_told_before_the_base_is_loaded(editloop, lab_log):
    fails(editloop("fit", lab_log, "--base", "lab:email", "--memory", "1MB"), "allowed by --memory", "need ")
    fails(editloop("fit", lab_log, "--base", "lab:email", "--memory", "much"), "as in 6GB")


def test_fit_does_not_write_over_another_run(editloop, run_folder, lab_log):
    before = (run_folder / "run.json").read_bytes()
    fails(editloop("fit", lab_log, "--base", "lab:email", "--out", run_folder, "--epochs", "2"), "--out")
    assert (run_folder / "run.json").read_bytes() == before


def test_config_file_gives_flags_and_the_command_line_wins(editloop, run_folder, lab_log, tmp_path):
    (tmp_path / "fit.yaml").write_text(
        "base: lab:email\nepochs: 7\nvalidation_samples: 4\nmax-new-tokens: 16\nhyperparameters:\n"
        "  sft: {learning_rate: [1e-3]}\n  dpo: {learning_rate: 0.001}\n  early: {learning_rate: 1e-3}\n",
        encoding="utf-8",
    )
    status, out, _ = editloop("fit", lab_log, "--config", "fit.yaml", "--out", run_folder, "--epochs", "1")
    assert status == 0 and "nothing to do" in out  # the same configuration as the run's


@pytest.mark.parametrize(
    ("content", "word"),
    [("epochz: 3\n", "epochz"), ("[1, 2]\n", "mapping"), ("a: [\n", "not YAML")],
)
def test_bad_config_file_is_one_line(editloop, lab_log, tmp_path, content, word):
    (tmp_path / "fit.yaml").write_text(content, encoding="utf-8")
    fails(editloop("fit", lab_log, "--base", "lab:email", "--config", "fit.yaml"), word)


def test_evaluate_prints_and_writes(editloop, run_folder, lab_log, tmp_path):
    copy = tmp_path / "held.jsonl"
    copy.write_text("".join(lab_log.read_text().splitlines(keepends=True)[:20]))
    status, out, _ = editloop("evaluate", run_folder, copy, "--samples", "3")
    assert status == 0
    assert all(name in out for name in ("base", "sft", "dpo", "early"))
    (file,) = run_folder.glob("evaluation-held-????????.json")
    figures = json.loads(file.read_text())
    assert file.stem.endswith(figures["log"]["sha256"][:8])
    assert figures["rows"] == figures["seen"] == 20
    assert (
        "20 of 20 rows were seen in training" in out
    )  # the head of the log is another file, and no other rows
    assert figures["policies"]["base"]["chosen_shift"]["mean"] == pytest.approx(0, abs=1e-4)
    assert figures["policies"]["sft"]["sampled"]["cost"]["n"] == 3


def test_evaluate_reads_outcomes_and_asks_a_judge(
    editloop, run_folder, lab_log, tmp_path, server, monkeypatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    server.answer = lambda prompt: "A" if "Draft A" in prompt else "no verdict"
    rows = [json.loads(line) for line in lab_log.read_text().splitlines()[:20]]
    for i, row in enumerate(rows):
        row["metadata"] = {**row.get("metadata", {}), "pass": i % 3 > 0}
    (tmp_path / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = ("--samples", "20", "--judge", "m", "--judge-url", server.url)
    status, out, _ = editloop("evaluate", run_folder, "held.jsonl", "--outcome", "pass", *judged)
    assert status == 0
    words = " ".join(out.split())
    assert "pass: 0.650 over 20 drafts, whose edits cost" in words
    assert "sft: its response wins over the base's in" in words
    # Whoever comes first is preferred, which decides nothing.
    assert "50% [30%, 70%] of 20 contexts by judge" in words
    assert (run_folder / "judge.jsonl").is_file()
    asked = len(server.prompts)
    assert editloop("evaluate", run_folder, "held.jsonl", *judged)[0] == 0
    assert len(server.prompts) == asked
    (run_folder / "judge.jsonl").unlink()
    fails(
        editloop("evaluate", run_folder, "held.jsonl", "--outcome", "ci"), "no row has this outcome", "'ci'"
    )
    fails(editloop("evaluate", run_folder, "held.jsonl", "--judge", "m"), "a judge compares", "--samples")
    fails(editloop("evaluate", run_folder, "held.jsonl", "--judge-budget", "3"), "--judge MODEL")


def test_evaluate_leaves_out_what_was_seen(editloop, run_folder, lab_log, tmp_path):
    fails(editloop("evaluate", run_folder, lab_log, "--drop-seen"), "no row to evaluate on", "60")
    new = {"context": "notes", "response": "a draft", "edit": "the edit"}
    (tmp_path / "held.jsonl").write_text(lab_log.read_text() + json.dumps(new) + "\n")
    status, out, _ = editloop("evaluate", run_folder, "held.jsonl", "--drop-seen")
    assert status == 0
    assert "60 rows: seen in training" in out and "\n1 rows, 1 pairs" in out


def test_estimate_prints_and_writes(editloop, tmp_path):
    decisions = [
        {
            "id": str(i),
            "context": f"Write {i}.",
            "response": "one two three four",
            "edit": "one two three four" if i % 4 == 0 else "one two three five" if i % 2 == 0 else "six",
            "policy": "sft@1" if i % 2 == 0 else "dpo@2",
            "propensity": 0.5,
        }
        for i in range(80)
    ]
    write_rows(tmp_path / "decisions.jsonl", decisions)
    status, out, _ = editloop("estimate", "decisions.jsonl", "--policy", "fixed:sft", "--policy", "kl-ucb")
    assert status == 0
    assert "80 decisions with a cost; mean cost as logged" in out and "fixed:sft" in out and "kl-ucb" in out
    figures = json.loads((tmp_path / "decisions-estimate.json").read_text())
    assert figures["rules"]["fixed:sft"]["snips"]["value"] == pytest.approx(0.125)
    assert figures["arms"] == ["dpo@2", "sft@1"]
    fails(editloop("estimate", "decisions.jsonl", "--policy", "fixed:early"), "fixed:sft@1")
    fails(editloop("estimate", "decisions.jsonl", "--features", "psychic"), "psychic", "hashed")
    bad = [each | {"propensity": 0 if i == 3 else 0.5} for i, each in enumerate(decisions)]
    write_rows(tmp_path / "bad.jsonl", bad)
    status, out, _ = editloop("estimate", "bad.jsonl")
    assert status == 0 and "1 bad" in out and "79 decisions" in out


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_export_writes_a_view(editloop, lab_log, tmp_path):
    status, out, _ = editloop("export", lab_log, "--to", "trl-dpo", "--out", "pairs.jsonl")
    assert status == 0
    first = json.loads((tmp_path / "pairs.jsonl").read_text().splitlines()[0])
    assert set(first) == {"prompt", "chosen", "rejected"}
    assert "rows written" in out


def test_lab_log_writes_a_log_of_the_asked_size(editloop, tmp_path):
    status, _, _ = editloop("lab", "log", "weak.csv", "--rows", "7", "--user", "weak")
    assert status == 0
    status, out, _ = editloop("inspect", "weak.csv")
    assert status == 0 and "read 7 rows" in out


def test_lab_pretrain_makes_a_base_from_text_that_fit_takes(editloop, tmp_path):
    text = "\n".join(
        f"the {w} draft number {i} is sent to the {w} reader" for i in range(400) for w in ("old", "new")
    )
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    status, out, _ = editloop(
        "lab", "pretrain", "--text", "text.txt", "--out", "base", "--epochs", "1", "--vocabulary", "300"
    )
    assert status == 0 and "perplexity" in out
    log = rows(tmp_path / "log.jsonl", 30)
    status, _, err = editloop("fit", log, "--base", "base", "--methods", "sft", "--out", "run", *QUICK)
    assert status == 0, err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inspect", "nowhere.jsonl"], ["nowhere.jsonl"]),
        (["inspect", "."], ["this folder is no dataset"]),
        (["inspect", "good.jsonl", "--map", "response=nothere"], ["nothere"]),
        (["inspect", "good.jsonl", "--cost", "hamming"], ["hamming"]),
        (["inspect", "good.jsonl", "--max-bad-share", "7"], ["--max-bad-share"]),
        (["inspect", "good.jsonl", "--format", "xml"], ["xml"]),
        (["fit", "good.jsonl", "--base", "./nowhere"], ["./nowhere", "--base"]),
        (["fit", "good.jsonl", "--base", "folder"], ["config.json"]),
        (["fit", "good.jsonl", "--base", "lab:novel"], ["novel"]),
        (["fit", "good.jsonl", "--base", "lab:email", "--methods", "ppo"], ["unknown method", "ppo", "sft"]),
        (
            ["fit", "good.jsonl", "--base", "lab:email", "--set", "sft.learning_rate=fast"],
            ["sft.learning_rate"],
        ),
        (["fit", "good.jsonl", "--base", "lab:email", "--epochs", "0"], ["epochs"]),
        (["fit", "good.jsonl", "--base", "lab:email", "--device", "abacus"], ["--device"]),
        (["fit", "good.jsonl", "--base", "lab:email", "--dtype", "int3"], ["--dtype"]),
        (["fit", "good.jsonl", "--base", "lab:email", "--end-token", "<nope>"], ["--end-token"]),
        (["fit", "good.jsonl", "--base", "lab:email", "--set", "dpo.beta=0.1,0.5"], ["select cost"]),
        (["fit", "unedited.jsonl", "--base", "lab:email", "--methods", "dpo"], ["unedited"]),
        (["fit", "one.jsonl", "--base", "lab:email"], ["give more rows"]),
        (["fit", "pending.jsonl", "--base", "lab:email"], ["pending"]),
        (["fit", "good.jsonl", "--base", "lab:email", "--out", "folder"], ["--out"]),
        (["fit", "good.jsonl", "--base", "lab:email", "--out", "."], ["--out"]),
        (["fit", "good.jsonl", "--base", "lab:email", "--out", "good.jsonl"], ["--out"]),
        (["evaluate", "folder", "good.jsonl"], ["run.json"]),
        (["simulate", "folder"], ["run.json"]),
        (["export", "good.jsonl", "--to", "stone"], ["stone"]),
        (["lab", "log", "x.jsonl", "--user", "nobody"], ["nobody"]),
        (["lab", "log", "x.jsonl", "--domain", "poems"], ["poems"]),
        (["lab", "log", "x.jsonl", "--texts", "web"], ["web", "hub"]),
        (["lab", "log", "x.jsonl", "--texts", "hub"], ["llm user"]),
        (["lab", "pretrain", "--text", "empty.txt"], ["no text to train on"]),
        (["demo", "--epochs", "0"], ["epochs"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line(editloop, tmp_path, arguments, words):
    rows(tmp_path / "good.jsonl", 30)
    rows(tmp_path / "unedited.jsonl", 30, "the draft {i}")
    rows(tmp_path / "one.jsonl", 1)
    rows(tmp_path / "pending.jsonl", 5, None)
    (tmp_path / "empty.txt").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/note.txt").touch()
    fails(editloop(*arguments), *words)


def test_simulate_plays_rounds_and_goes_on(editloop, run_folder, tmp_path, monkeypatch):
    asked = ["simulate", run_folder, "--rounds", "24", "--out", "rounds"]
    status, out, err = editloop(*asked)
    assert status == 0, err
    assert "alpha=0.45" in out and "round   20" in out and "24 of 24 rounds counted" in out
    assert max(map(len, out.splitlines())) <= 110
    summary = json.loads((tmp_path / "rounds/summary.json").read_text())
    assert sum(arm["share"] for arm in summary["arms"].values()) == pytest.approx(1)
    assert (tmp_path / "rounds/rounds.png").stat().st_size > 5000
    rounds = (tmp_path / "rounds/rounds.jsonl").read_bytes()
    assert editloop(*asked)[0] == 0  # nothing is left to play
    assert (tmp_path / "rounds/rounds.jsonl").read_bytes() == rounds
    fails(editloop(*asked, "--alpha", "1"), "another simulation")
    settings = json.loads((tmp_path / "rounds/settings.json").read_text())
    assert settings["bandit"]["prior"] is None
    assert editloop(*asked[:-1], "informed", "--prior", "--rounds", "3")[0] == 0
    prior = json.loads((tmp_path / "informed/settings.json").read_text())["bandit"]["prior"]
    policies = json.loads((run_folder / "run.json").read_text())["policies"]
    assert prior == {name: policy["trials"][0]["validation_cost"] for name, policy in policies.items()}
    char = ("--cost", "levenshtein:char/response")
    fails(editloop(*asked[:-1], "informed", "--prior", *char), "in another cost")
    status, out, _ = editloop(*asked[:-1], "drifted", "--drift", "12", "--drift-over", "6")
    assert status == 0 and "24 of 24" in out
    fails(editloop("simulate", run_folder, "--user", "llm"), "--model")
    fails(editloop("simulate", run_folder, "--algorithm", "luck"), "luck")
    fails(editloop("simulate", run_folder, "--alpha", "-1"), "alpha")
    fails(editloop("simulate", run_folder, "--style", "formal"), "--style")
    fails(editloop("simulate", run_folder, "--budget", "3"), "--budget is for the llm user")
    rows(tmp_path / "foreign.jsonl", 3)
    fails(editloop("simulate", run_folder, "--contexts", "foreign.jsonl", "--rounds", "3"), "not a context")
    fails(editloop("simulate", run_folder, "--cost", "levenshtein:word/none"), "a scale or alpha")
    hub = (
        "simulate",
        run_folder,
        "--texts",
        "hub",
        "--user",
        "llm",
        "--model",
        "m",
        "--base-url",
        "http://localhost:9/v1",
    )
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    fails(editloop(*hub, "--drift", "3"), "only for the lab's texts")
    fails(editloop("simulate", run_folder, "--user", "nobody"), "nobody")
    fails(editloop(*asked, "--rounds", "0"), "--rounds", status=2)


def test_simulate_asks_the_contexts_of_a_log_of_an_llm(editloop, run_folder, lab_log, server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    llm = ["--user", "llm", "--model", "m", "--base-url", server.url]
    asked = ["simulate", run_folder, *llm, "--contexts", lab_log, "--rounds", "6", "--out", "rounds"]
    status, out, err = editloop(*asked, "--style", "formal", "--cost", "levenshtein:word/none")
    assert status == 0, err
    assert "6 of 6 rounds counted" in out and "95% of 60 costs are at most this" in " ".join(out.split())
    logged = [json.loads(line)["context"] for line in lab_log.read_text().splitlines()]
    played = [json.loads(line) for line in Path("rounds/rounds.jsonl").read_text().splitlines()]
    assert [row["context"] for row in played] == logged[:6]
    assert all("style: formal" in prompt for prompt in server.prompts)
    assert {row["cost"] for row in played} <= {0.0, 1.0}  # a word before the draft, or none
    assert len(Path("rounds/transcript.jsonl").read_text().splitlines()) == len(server.prompts)
    fails(editloop(*asked, "--rounds", "61"), "fewer contexts than rounds")


def test_a_log_of_an_llm(editloop, server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    llm = ["--user", "llm", "--model", "m", "--base-url", server.url]
    status, _, err = editloop("lab", "log", "log.jsonl", "--rows", "5", *llm)
    assert status == 0, err
    rows = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    assert [row["edit"].split()[0] for row in rows] == ["Dear"] * 5 and rows[0]["user"] == "llm"
    assert "greeting" in server.prompts[0]  # the domain's wishes, in words


def test_a_response_of_a_megabyte_is_cut_and_counted(editloop, tmp_path):
    log = rows(tmp_path / "log.jsonl", 20)
    with log.open("a", encoding="utf-8") as file:
        file.write(
            json.dumps({"id": "big", "context": "x", "response": "word " * 200_000, "edit": "short"}) + "\n"
        )
    status, out, err = editloop("fit", log, "--base", "lab:email", "--methods", "sft", *QUICK)
    assert status == 0, err
    assert "1 rows: continuation cut" in out


def test_a_training_that_diverges_ends_in_a_report(editloop, tmp_path):
    log = rows(tmp_path / "log.jsonl", 20)
    hot = [*QUICK[:-1], "learning_rate=1e30"]
    status, out, err = editloop("fit", log, "--base", "lab:email", "--methods", "sft", *hot)
    assert status == 0, err
    assert "→ –" in out and "never improved" in out
    assert (tmp_path / "run/report.html").is_file()
    status, out, err = editloop("evaluate", "run", log)
    assert status == 0, err
    (file,) = (tmp_path / "run").glob("evaluation-*.json")
    figures = json.loads(file.read_text(), parse_constant=pytest.fail)  # JSON knows no NaN
    assert figures["policies"]["sft"]["edit_nll_per_token"]["mean"] is None


def test_a_full_disk_is_one_line(lab_log, tmp_path):
    """A file-size limit of the process stands for a disk that is full."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000));"
        f"sys.argv = ['editloop', 'inspect', {str(lab_log)!r}, '--out', 'seen'];"
        "from editloop.cli import main; main()"
    )
    # A process whose coverage is measured could not write that down under such a limit.
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=unmeasured,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("editloop: error: ") and done.stderr.count("\n") == 1
    assert [p for p in (tmp_path / "seen").iterdir() if not p.name.startswith(".")] == []


def test_interrupted_fit_says_so_and_goes_on(lab_log, tmp_path):
    import signal

    command = [sys.executable, "-m", "editloop", "fit", lab_log, "--base", "lab:email", "--out", "run"]
    command += [*QUICK, "--methods", "sft,dpo"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts these tests in the background has them ignore it, and children would, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as child:
        for line in child.stdout:
            if line.startswith("sft: validation loss"):
                child.send_signal(signal.SIGINT)
                break
        _, err = child.communicate(timeout=120)
    assert child.returncode == 130
    assert err.startswith("editloop: error: interrupted; finished work is kept") and err.count("\n") == 1
    adapter = tmp_path / "run/policies/sft/adapter_model.safetensors"
    before = adapter.read_bytes(), adapter.stat().st_mtime_ns
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert (adapter.read_bytes(), adapter.stat().st_mtime_ns) == before
    assert list(json.loads((tmp_path / "run/run.json").read_text())["policies"]) == ["sft", "dpo"]
