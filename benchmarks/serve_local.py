"""What serving in-process costs beside plain generation: adapters that differ by row, rows that come late.

Eight requests at once for three adapters, compared with one batch of the same eight prompts by the base's own
`generate`, which knows no adapter; and a short request behind a long one, compared with the short one alone.
Everything runs on one thread, in turns. The batches are counted in processor time, because in wall time, what
else the machine does would decide; a short request waits, and is counted in wall time.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from editloop.edits import Record
from editloop.offline import FitConfig, fit
from editloop.policy import Policy, load_base
from editloop.policy.catalog import find_policies
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, write_result
from editloop.serve.backends.local import LocalBackend

__all__ = ["run"]

BASE = "smollm2"
METHODS = ("sft", "dpo", "early")
PROMPTS = (
    "Write a long letter to Ann about the meeting on Friday.",
    "Describe the city of Paris in detail.",
    "Tell me a long story about a dog.",
    "Explain what a bandit algorithm is.",
    "Write an email that invites Ada to the demo.",
    "List twenty fruits.",
    "Write a long email to Bob about being late.",
    "Explain photosynthesis.",
)
SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "sampled": {"temperature": 0.7, "top_p": 0.9, "seed": 3},
}
BATCH_GOAL, BEHIND_GOAL = 1.1, 1.5
SHORT = 5
"""The tokens of the short request. The long one has as many as the others, and is half a second ahead."""


def run(
    out: str | Path,
    *,
    base: str = BASE,
    tokens: int = 48,
    repeats: int = 3,
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measure, and write `serve-local.json` and `serve-local.md`.

    Args:
        out: The folder for the results.
        base: The base, as `load_base` takes it.
        tokens: The tokens of a response.
        repeats: How often each measurement takes its turn.
        callback: Receives progress.
    """
    callback, threads = callback or WarningCallback(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            plain = load_base(base, dtype="float32")
            arms = Path(folder) / "run"
            # What the adapters say does not matter, only that their rows compute with different numbers.
            config = FitConfig(methods=METHODS, epochs=0.5, evaluations=1, validation_samples=0)
            fit(_log(), plain, arms, config, report=False)
            measured = asyncio.run(_measured(plain, base, arms, tokens, repeats, callback))
    finally:
        torch.set_num_threads(threads)
    measured = {"base": base, "tokens": tokens, "repeats": repeats, **measured}
    write_result("serve-local", measured, _page(measured), out)
    return measured


def _log() -> list[Record]:
    return [
        Record(
            id=str(i),
            context=f"{prompt} ({i})",
            response=f"Dear reader, this is about number {i}.",
            edit=f"Number {i}, in short.",
        )
        for i, prompt in enumerate(PROMPTS * 3)
    ]


async def _measured(
    plain: Policy, base: str, arms: Path, tokens: int, repeats: int, callback: ProgressCallback
) -> dict[str, Any]:
    backend = LocalBackend(device="cpu", dtype="float32")
    await backend.start()
    served = find_policies(arms)
    for policy in served:
        await backend.prepare(policy)
    names = [policy.arm for policy in served]

    async def ask(i: int, limit: int, settings: Mapping[str, Any]) -> int:
        request = {"messages": [{"role": "user", "content": PROMPTS[i]}], "max_tokens": limit, **settings}
        done = await backend.complete(names[i % len(names)], request, str(i))
        return int((done.usage or {})["completion_tokens"])

    async def eight(settings: Mapping[str, Any]) -> list[int]:
        return list(await asyncio.gather(*(ask(i, tokens, settings) for i in range(len(PROMPTS)))))

    seconds: dict[str, list[float]] = {}
    drawn: dict[str, list[int]] = {}
    short: dict[str, list[float]] = {"alone": [], "behind": []}
    for turn in range(repeats + 1):  # the first one warms up, and is not counted
        for name, settings in SETTINGS.items():
            for label, work in (
                (f"generate, {name}", lambda s=settings: _generated(plain, tokens, s)),
                (f"serve, {name}", lambda s=settings: eight(s)),
            ):
                spent, drawn[label] = await _spent(work)
                seconds.setdefault(label, []).append(spent)
        for label in short:
            short[label].append(await _short(ask, tokens, is_behind=label == "behind"))
        callback.progress("turns", turn, repeats)
    await backend.stop()
    return {
        "seconds": {label: each[1:] for label, each in seconds.items()},
        "drawn": drawn,
        "short": {label: each[1:] for label, each in short.items()},
    }


async def _spent(work: Callable[[], Awaitable[list[int]]]) -> tuple[float, list[int]]:
    """Return the processor seconds of some work, and the numbers of tokens that it drew."""
    start = time.process_time()
    drawn = await work()
    return time.process_time() - start, drawn


async def _short(
    ask: Callable[[int, int, Mapping[str, Any]], Awaitable[int]], tokens: int, *, is_behind: bool
) -> float:
    """Return the wall seconds of a short request, alone or while a long one is being answered."""
    long = asyncio.ensure_future(ask(2, tokens, SETTINGS["greedy"])) if is_behind else None
    if long is not None:
        await asyncio.sleep(0.5)
    start = time.perf_counter()
    await ask(1, SHORT, SETTINGS["greedy"])
    seconds = time.perf_counter() - start
    if long is not None:
        await long
    return seconds


async def _generated(plain: Policy, tokens: int, settings: Mapping[str, Any]) -> list[int]:
    """Answer all prompts in one batch by `generate`, and return the number of tokens of each response."""
    encoder = plain.encoder
    prompts = [encoder.prompt(each) for each in PROMPTS]
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), encoder.pad)
    seen = torch.zeros(len(prompts), width, dtype=torch.long)
    for i, prompt in enumerate(prompts):
        ids[i, width - len(prompt) :], seen[i, width - len(prompt) :] = torch.tensor(prompt), 1
    own = {key: value for key, value in settings.items() if key != "seed" and value}
    config = GenerationConfig(
        max_new_tokens=tokens,
        eos_token_id=encoder.end,
        pad_token_id=encoder.pad,
        do_sample=bool(own),
        **(own | {"top_k": 0} if own else {}),
    )
    with torch.inference_mode():
        made = plain.model.generate(input_ids=ids, attention_mask=seen, generation_config=config)
    return [int((row[width:] != encoder.pad).sum()) for row in made]


def _page(measured: Mapping[str, Any]) -> str:
    rows = []
    for name in SETTINGS:
        pair = [measured["seconds"][f"{kind}, {name}"] for kind in ("generate", "serve")]
        steps = [max(measured["drawn"][f"{kind}, {name}"]) for kind in ("generate", "serve")]
        ratio = statistics.median(b / a for a, b in zip(*pair, strict=True))
        rows.append(
            [name, *(f"{statistics.median(each):.2f}" for each in pair), *map(str, steps), f"{ratio:.2f}"]
        )
    alone, behind = (statistics.median(measured["short"][key]) for key in ("alone", "behind"))
    ratios: Sequence[float] = [
        b / a for a, b in zip(measured["short"]["alone"], measured["short"]["behind"], strict=True)
    ]
    return "\n\n".join(
        [
            f"{measured['base']} in float32, one thread, {measured['repeats']} turns, medians. Eight "
            f"requests at once for three adapters of rank 16, at most {measured['tokens']} tokens each, and "
            "the base's `generate` on one batch of the same prompts without an adapter; processor seconds.",
            markdown_table(
                ["decoding", "generate", "serve", "longest, generate", "longest, serve", "ratio"], rows
            ),
            f"The goal is a ratio of at most {BATCH_GOAL}.",
            f"A request of {SHORT} tokens takes {alone:.2f} s alone and {behind:.2f} s while a long one is "
            f"answered, {statistics.median(ratios):.2f} times as long ({min(ratios):.2f} to "
            f"{max(ratios):.2f}; the goal is at most {BEHIND_GOAL}); wall time.",
        ]
    )
