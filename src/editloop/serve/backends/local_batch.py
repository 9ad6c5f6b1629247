"""One batch of requests in this process: tokens are drawn for all of them at once, and sent one by one.

A batch has one way to draw tokens and one model: the base, on which each row uses the adapter of its own
arm, or a whole model. A row ends at its own limit or stop text, or when nobody waits for it any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from editloop.policy import Policy
from editloop.policy.generation import GenerationSettings
from editloop.policy.sampling import InversionSampler, uniform_numbers, without_shipped_settings
from editloop.serve.backends.base import BackendUnavailableError, Chunk

__all__ = ["Job", "generate"]

NO_ADAPTER = "__base__"
"""PEFT's name for rows that have no adapter."""


@dataclass(eq=False)  # two requests with equal content are two jobs
class Job:
    """A request in a batch, and where its text goes.

    The event loop's thread makes a job, reads its `parts` and may set `done`; the thread that generates does
    everything else.

    Attributes:
        arm: The arm whose adapter is used.
        whole: The model, if the arm is a whole model; None for an adapter on the base, or the base itself.
        prompt: The token ids of the prompt.
        max_tokens: Maximum number of tokens to generate.
        settings: How its tokens are drawn, which is the same in a batch.
        stream: The random stream by which its tokens are drawn.
        stops: Texts that end the response.
        event_loop: The event loop that waits for it.
        parts: The chunks so far, or the error that ended them.
        ids: The tokens drawn so far.
        sent: The text that was sent so far.
        done: Why it ended; None before that.
    """

    arm: str
    whole: Policy | None
    prompt: tuple[int, ...]
    max_tokens: int
    settings: GenerationSettings
    stream: np.random.SeedSequence
    stops: tuple[str, ...]
    event_loop: asyncio.AbstractEventLoop
    parts: asyncio.Queue[Chunk | Exception] = field(default_factory=asyncio.Queue)
    ids: list[int] = field(default_factory=list)
    sent: str = ""
    done: str | None = None

    def send(self, part: Chunk | Exception) -> None:
        """Send a part to the event loop that waits for it."""
        with suppress(RuntimeError):  # the event loop has ended
            self.event_loop.call_soon_threadsafe(self.parts.put_nowait, part)

    def fail(self, error: Exception) -> None:
        """Send the error that ends the response, unless it has ended already."""
        if self.done is None:
            self.send(BackendUnavailableError("error", str(error) or type(error).__name__))


@torch.inference_mode()
def generate(jobs: Sequence[Job], base: Policy, model: Any) -> None:
    """Draw the responses of a batch; each token is sent as soon as it is drawn.

    Args:
        jobs: Requests with the same `settings` and the same `whole`.
        base: The base, whose tokenizer all arms share.
        model: The base's model with the adapters on it, or the model of `whole`.
    """
    encoder, device = base.encoder, base.device
    width = max(len(job.prompt) for job in jobs)
    ids = torch.full((len(jobs), width), encoder.pad, dtype=torch.long)
    for row, job in enumerate(jobs):  # padded on the left, so that all rows continue in the same column
        ids[row, width - len(job.prompt) :] = torch.tensor(job.prompt)
    is_prompt = torch.arange(width) >= width - torch.tensor([len(job.prompt) for job in jobs])[:, None]
    settings = jobs[0].settings
    longest = max(job.max_tokens for job in jobs)
    draw = []
    if settings.temperature > 0:
        uniform = uniform_numbers([job.stream for job in jobs], longest)
        draw = [InversionSampler(uniform, settings, width)]
    config = GenerationConfig(
        do_sample=False,  # InversionSampler leaves one possible token; without it, decoding is greedy
        max_new_tokens=longest,
        eos_token_id=encoder.end,
        pad_token_id=encoder.pad,
        bos_token_id=encoder.tokenizer.bos_token_id,
        repetition_penalty=settings.repetition_penalty,
    )
    adapters: dict[str, Any] = {}
    if jobs[0].whole is None and model is not base.model:
        adapters["adapter_names"] = [NO_ADAPTER if job.arm.startswith("base@") else job.arm for job in jobs]
    without_shipped_settings(model).generate(
        input_ids=ids.to(device),
        attention_mask=is_prompt.long().to(device),
        generation_config=config,
        logits_processor=LogitsProcessorList(draw),
        streamer=_JobStreamer(jobs, base),
        stopping_criteria=StoppingCriteriaList([_JobsDone(jobs)]),
        **adapters,
    )


class _JobStreamer(BaseStreamer):  # type: ignore[misc]
    """Sends each row's text as it grows."""

    def __init__(self, jobs: Sequence[Job], base: Policy) -> None:
        self.jobs, self.encoder, self.has_begun = jobs, base.encoder, False

    def put(self, value: torch.Tensor) -> None:
        """Take what `generate` draws: first all prompts in one call, then one token of each row per call."""
        if not self.has_begun:
            self.has_begun = True
            return
        for job, token in zip(self.jobs, value.tolist(), strict=True):
            if job.done is None:
                self._add(job, token)

    def _add(self, job: Job, token: int) -> None:
        """Add a token to a response, and send what has become certain of its text."""
        job.ids.append(token)
        ended = token == self.encoder.end
        # All tokens are decoded each time, because a token's text depends on those before it: it may be a
        # part of a character, or lose a leading blank.
        text = self.encoder.decode(job.ids[:-1] if ended else job.ids)
        found = [at for stop in job.stops if (at := text.find(stop)) >= 0]
        if found:
            text, ended = text[: min(found)], True
        full = len(job.ids) >= job.max_tokens
        if not (ended or full):
            # What the next tokens may still change is held back: the beginning of a stop text or of a
            # character. The latter is decoded as one U+FFFD or, by some tokenizers, as one for each byte.
            held = max((_overlap(text, stop) for stop in job.stops), default=0)
            text = text.rstrip("\ufffd")
            text = text[: len(text) - held] if held else text
        if text.startswith(job.sent) and len(text) > len(job.sent):
            role = {} if job.sent else {"role": "assistant"}
            job.send(Chunk(role | {"content": text[len(job.sent) :]}))
            job.sent = text
        if ended or full:
            job.done = "stop" if ended else "length"
            usage = {"prompt_tokens": len(job.prompt), "completion_tokens": len(job.ids)}
            usage["total_tokens"] = sum(usage.values())
            job.send(Chunk({}, job.done, usage))

    def end(self) -> None:
        """Nothing is left to do: each row's end was sent with its last token."""


class _JobsDone(StoppingCriteria):  # type: ignore[misc]
    """Ends each row at its own limit or stop text, or when nobody waits for it any more."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Whether each row has ended."""
        return torch.tensor([job.done is not None for job in self.jobs], device=input_ids.device)


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of a text may be the beginning of a stop text."""
    return max((n for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
