"""From serving to a fit: the policies that wrote a store's log are the reference, known by their figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from serving import run, serving, sqlite

from editloop.cli.fit import _read
from editloop.cli.reading import Reading
from editloop.edits import locate, read_log
from editloop.offline import FitConfig, fit, make_examples
from editloop.offline.logging_policies import LoggedPolicy, find_logging_policies, log_policies
from editloop.policy import RunFolder, load_base
from editloop.progress import WarningCallback
from editloop.serve.backends.local import LocalBackend
from small_log import RecordingCallback, small_log

SMALL: dict[str, Any] = {
    "epochs": 20,
    "batch_size": 8,
    "evaluations": 1,
    "validation": 0.25,
    "validation_samples": 0,
    "max_new_tokens": 12,
    "lora": {"rank": 4, "alpha": 8},
}
ROWS = 16


def test_what_was_logged_is_what_the_fit_computes(base: Any, tmp_path: Path) -> None:
    policy, url = load_base(base(chat=True), device="cpu"), sqlite(tmp_path)
    rates = {"sft": {"learning_rate": 2e-2}, "dpo": {"learning_rate": 1e-3}}
    first = FitConfig(methods=["sft"], hyperparameters={"sft": rates["sft"]}, **SMALL)
    earlier = fit(small_log(), policy, tmp_path / "earlier", first, report=False)

    async def work() -> None:
        async with serving(url, tmp_path, arms=(), backend=LocalBackend(max_new_tokens=60)) as service:
            body = {"run": str(earlier.path), "force": True}
            (arm,) = (await service.http.post("/v1/arms", json=body)).json()["arms"]
            for i in range(ROWS):
                answer = await service.ask(f"mail {i}", id=f"r{i}", seed=i, temperature=0.2)
                text = answer.json()["choices"][0]["message"]["content"]
                await service.edit(f"r{i}", f"hi! {text}")
            log = read_log(url)
            rows = len(log.records)
            assert rows > ROWS // 2  # a blank draft is no row
            assert log_policies(log) == {arm: LoggedPolicy(str(earlier.path.resolve()), "sft")}
            examples = make_examples(log.records, policy.encoder).examples
            found = find_logging_policies([arm], log_policies(log), policy)
            scored, _ = found.score(
                policy, examples, [e.completions for e in examples], cache=tmp_path / "cache"
            )
            computed = [each.reference[each.of("response")] for each in scored if each.reference]
            # A draft in other tokens than those of its text has another figure, and one that was cut none.
            close = [
                example.logprob == pytest.approx(value, abs=1e-3)
                for example, value in zip(examples, computed, strict=True)
                if example.logprob is not None
            ]
            assert len(close) > ROWS // 2 and sum(close) > 0.8 * len(close)

            callback = RecordingCallback()
            config = FitConfig(
                methods=["dpo"], hyperparameters={"dpo": rates["dpo"]}, reference="logged", **SMALL
            )
            fit(log, policy, tmp_path / "run", config, report=False, callback=callback)
            assert f"reference: {rows} rows by the policies that wrote them ({arm} {rows})" in callback.lines
            assert not any("other log-probabilities" in line for line in callback.lines)

            # An interrupted fit goes on with the rows that it has read, and with where their policies are.
            out = tmp_path / "interrupted"
            _read(Reading(), locate(url), out, WarningCallback())
            again, read, places = _read(Reading(), locate(url), out, WarningCallback())
            assert places == log_policies(log) and log_policies(again) == {}
            assert read is not None and "policies" not in read
            assert {row.logprob for row in again.records} == {row.logprob for row in log.records}
            assert not RunFolder(out).exists()

    run(work())
