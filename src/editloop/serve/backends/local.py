"""Policies in this process: one base, the adapters of run folders on it, requests answered in batches.

A batch holds requests for any of the adapters, or for one whole model. It is made of what waits when the
last one has ended, so that a long answer keeps others waiting: for many users at once there are servers like
vLLM (`upstream.py`).
"""

from __future__ import annotations

import asyncio
import queue
import threading
import warnings
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from editloop.edits.record import Message
from editloop.errors import EditLoopError, ModelError
from editloop.policy import Policy, RunFolder
from editloop.policy.sampling import InversionSampler, trim_loops, uniform_numbers, without_shipped_settings
from editloop.policy.verify import ADAPTER
from editloop.policy.weights import read_header
from editloop.serve.backends.base import (
    BackendUnavailableError,
    Chunk,
    Completion,
    ServedPolicy,
    unused_parts,
)
from editloop.serve.backends.capabilities import IN_PROCESS, check_request, refused
from editloop.serve.loop.logged_text import logged_context

__all__ = ["LocalBackend"]

BATCH = 16
"""Most requests that are answered together."""

BASE = "__base__"
"""What PEFT calls no adapter."""


@dataclass
class _Job:
    """A request in a batch, and where its text goes.

    Attributes:
        arm: Whose adapter.
        whole: The model, if it is one of its own; None on the base.
        prompt: Token ids.
        room: Most tokens.
        settings: Temperature and top-p; a batch has one of each.
        stream: Of the numbers that draw its tokens.
        stops: Texts that end a response.
        loop: Of who asked.
        parts: Chunks for who asked, or why there are none.
        ids: Tokens drawn so far.
        said: Text that was told.
        done: Why it ended.
    """

    arm: str
    whole: Policy | None
    prompt: tuple[int, ...]
    room: int
    settings: tuple[float, float | None]
    stream: np.random.SeedSequence
    stops: tuple[str, ...]
    event_loop: asyncio.AbstractEventLoop
    parts: asyncio.Queue[Chunk | Exception] = field(default_factory=asyncio.Queue)
    ids: list[int] = field(default_factory=list)
    said: str = ""
    done: str | None = None

    def tell(self, part: Chunk | Exception) -> None:
        """Hand a part to who asked."""
        with suppress(RuntimeError):  # their loop has ended
            self.event_loop.call_soon_threadsafe(self.parts.put_nowait, part)


class LocalBackend:
    """Policies on a base in this process.

    Args:
        max_new_tokens: Of a request that names no limit.
        options: As of `RunFolder.load_base`, for the base of the first run.
    """

    def __init__(self, *, max_new_tokens: int = 512, **options: Any) -> None:
        self._limit, self._options = max_new_tokens, options
        self._base: Policy | None = None
        self._model: Any = None
        self._policies: dict[str, ServedPolicy] = {}
        self._adapters: set[str] = set()
        self._whole: dict[str, Policy] = {}
        self._model_lock = threading.Lock()
        self._waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="policies", daemon=True)

    @property
    def down(self) -> str | None:
        """See `Backend.down`."""
        return None

    async def start(self) -> None:
        """See `Backend.start`."""
        self._thread.start()

    async def stop(self) -> None:
        """See `Backend.stop`: what is being answered is answered."""
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)

    async def prepare(self, policy: ServedPolicy) -> None:
        """See `Backend.prepare`: the base is loaded for the first."""
        await asyncio.to_thread(self._prepare, policy)

    def _prepare(self, policy: ServedPolicy) -> None:
        folder = RunFolder(policy.run)
        fingerprint = folder.manifest().base.fingerprint
        with self._model_lock:
            if self._base is None:
                self._base = folder.load_base(**self._options)
                self._model = self._base.model
            if fingerprint != self._base.fingerprint:
                raise ModelError(
                    "another base is loaded here",
                    seen=str(policy.run),
                    do="serve several bases by --upstream",
                )
            self._policies[policy.arm] = policy
            try:
                for part in policy.parts():
                    if part.name != "base":
                        self._load(part.arm, part.name, folder)
            except Exception:
                self._let_go(policy.arm)
                raise

    def _load(self, arm: str, name: str, folder: RunFolder) -> None:
        """Put an adapter on the base, beside those that are on it; or load a whole model."""
        if arm in self._adapters or arm in self._whole:
            return
        assert self._base is not None
        place = folder.policy_path(name)
        if not (place / "adapter_config.json").is_file():
            self._whole[arm] = folder.load_policy(name, self._base)
            return
        from peft import PeftModel
        from peft.utils import get_peft_model_state_dict

        model, is_first = self._model, self._model is self._base.model
        try:
            with warnings.catch_warnings():  # what is missing is looked for below
                warnings.simplefilter("ignore")
                if is_first:
                    model = PeftModel.from_pretrained(model, str(place), adapter_name=arm)
                else:
                    model.load_adapter(str(place), adapter_name=arm)
            have = get_peft_model_state_dict(model, adapter_name=arm, save_embedding_layers=False).keys()
            given = read_header(place / ADAPTER).keys()
            if have != given:
                raise ValueError(f"{len(have - given)} weights missing, {len(given - have)} unknown")
        except (OSError, ValueError, RuntimeError, LookupError, TypeError, SafetensorError) as error:
            if not is_first and arm in model.peft_config:
                model.delete_adapter(arm)
            elif isinstance(model, PeftModel) and is_first:
                model.unload().__dict__.pop("peft_config", None)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(f"the adapter cannot be loaded: {reason}", seen=str(place)) from error
        self._model = model
        self._model.eval()
        self._adapters.add(arm)

    async def retire(self, arm: str) -> None:
        """See `Backend.retire`; an adapter stays in memory, as answers may still need it."""
        self._let_go(arm)

    def _let_go(self, arm: str) -> None:
        policy = self._policies.pop(arm, None)
        for part in unused_parts(self._policies, policy) if policy is not None else ():
            self._whole.pop(part.arm, None)

    async def complete(self, arm: str, request: Mapping[str, Any], response_id: str) -> Completion:
        """See `Backend.complete`."""
        texts, finish, usage = [], "stop", None
        async for chunk in self.stream(arm, request, response_id):
            texts.append(chunk.delta.get("content", ""))
            finish, usage = chunk.finish or finish, chunk.usage or usage
        text = trim_loops("".join(texts))
        return Completion(text, finish, {"role": "assistant", "content": text}, usage)

    async def stream(self, arm: str, request: Mapping[str, Any], response_id: str) -> AsyncIterator[Chunk]:
        """See `Backend.stream`."""
        policy = self._policies.get(arm)
        if policy is None:
            raise BackendUnavailableError("missing", arm)
        job = self._job(policy.part_for(response_id).arm, request)
        self._waiting.put(job)
        try:
            while True:
                part = await job.parts.get()
                if isinstance(part, Exception):
                    raise part
                yield part
                if part.finish is not None:
                    return
        finally:
            job.done = job.done or "stop"  # nobody listens any more

    def check(self, request: Mapping[str, Any]) -> None:
        """See `Backend.check`: by a table, and by the base's own limits."""
        check_request(request, IN_PROCESS)
        if self._base is not None:
            self._prompt(request, self._base)

    def _prompt(self, request: Mapping[str, Any], base: Policy) -> tuple[int, ...]:
        """The tokens of the messages, if a response can follow them.

        Raises:
            Refused: None can.
        """
        context = logged_context(request["messages"], str)
        try:
            if not isinstance(context, str):
                context = tuple(Message.model_validate(each) for each in context)
            prompt = base.encoder.prompt(context)
        except (EditLoopError, ValueError) as error:
            raise refused(f"this policy takes messages of texts only: {error}", "messages") from error
        if len(prompt) >= base.encoder.max_length:
            raise refused(f"{len(prompt)} tokens leave no room for a response", "messages")
        return tuple(prompt)

    def _job(self, arm: str, request: Mapping[str, Any]) -> _Job:
        assert self._base is not None
        prompt = self._prompt(request, self._base)
        room = self._base.encoder.max_length - len(prompt)
        asked = request.get("max_completion_tokens") or request.get("max_tokens") or self._limit
        temperature = request.get("temperature")
        settings = (1.0 if temperature is None else temperature, request.get("top_p"))
        seed = request.get("seed")
        stream = np.random.SeedSequence(None if seed is None else seed % 2**128)
        stop = request.get("stop") or ()
        stops = (stop,) if isinstance(stop, str) else tuple(map(str, stop))
        event_loop, whole = asyncio.get_running_loop(), self._whole.get(arm)
        return _Job(arm, whole, prompt, min(room, asked), settings, stream, stops, event_loop)

    # In the thread that answers

    def _run(self) -> None:
        kept: list[_Job] = []
        ended = False
        while not (ended and not kept):
            if not kept:
                job = self._waiting.get()
                ended = job is None
                kept += [job] if job else []
            with suppress(queue.Empty):
                while not ended:
                    job = self._waiting.get_nowait()
                    ended = job is None
                    kept += [job] if job else []
            if not kept:
                continue
            first = kept[0]
            alike = [job for job in kept if job.settings == first.settings and job.whole is first.whole]
            alike = alike[:BATCH]
            kept = [job for job in kept if job not in alike]
            try:
                with self._model_lock:
                    self._answer(alike)
            except Exception as error:  # the thread outlives it
                for job in alike:
                    if job.done is None:
                        job.tell(BackendUnavailableError("error", str(error) or type(error).__name__))

    @torch.inference_mode()
    def _answer(self, jobs: Sequence[_Job]) -> None:
        """InversionSampler the responses of a batch, told token by token."""
        assert self._base is not None
        encoder, device = self._base.encoder, self._base.device
        width = max(len(job.prompt) for job in jobs)
        ids = torch.full((len(jobs), width), encoder.pad, dtype=torch.long)
        for row, job in enumerate(jobs):
            ids[row, width - len(job.prompt) :] = torch.tensor(job.prompt)
        seen = torch.arange(width) >= width - torch.tensor([len(job.prompt) for job in jobs])[:, None]
        temperature, top_p = jobs[0].settings
        room = max(job.room for job in jobs)
        draw = []
        if temperature > 0:
            uniform = uniform_numbers([job.stream for job in jobs], room)
            draw = [InversionSampler(uniform, temperature, width, top_p)]
        config = GenerationConfig(
            do_sample=False,  # the draw is ours, or the likeliest token
            max_new_tokens=room,
            eos_token_id=encoder.end,
            pad_token_id=encoder.pad,
            bos_token_id=encoder.tokenizer.bos_token_id,
        )
        named: dict[str, Any] = {}
        model = self._model if jobs[0].whole is None else jobs[0].whole.model
        if model is self._model is not self._base.model:
            named["adapter_names"] = [BASE if job.arm.startswith("base@") else job.arm for job in jobs]
        without_shipped_settings(model).generate(
            input_ids=ids.to(device),
            attention_mask=seen.long().to(device),
            generation_config=config,
            logits_processor=LogitsProcessorList(draw),
            streamer=_Teller(jobs, self._base),
            stopping_criteria=StoppingCriteriaList([_Done(jobs)]),
            **named,
        )


class _Teller(BaseStreamer):  # type: ignore[misc]
    """Hands each row's text to who asked for it, as it grows."""

    def __init__(self, jobs: Sequence[_Job], base: Policy) -> None:
        self.jobs, self.encoder, self.begun = jobs, base.encoder, False

    def put(self, value: torch.Tensor) -> None:
        """The prompts first, then a token of each row."""
        if not self.begun:
            self.begun = True
            return
        for job, token in zip(self.jobs, value.tolist(), strict=True):
            if job.done is None:
                self._add(job, token)

    def _add(self, job: _Job, token: int) -> None:
        job.ids.append(token)
        ended = token == self.encoder.end
        text = self.encoder.decode(job.ids[:-1] if ended else job.ids)
        found = [at for stop in job.stops if (at := text.find(stop)) >= 0]
        if found:
            text, ended = text[: min(found)], True
        full = len(job.ids) >= job.room
        if not (ended or full):  # half of a character, or of a stop, may be whole with the next token
            held = max((_overlap(text, stop) for stop in job.stops), default=0)
            text = text.removesuffix("\ufffd")
            text = text[: len(text) - held] if held else text
        if text.startswith(job.said) and len(text) > len(job.said):
            role = {} if job.said else {"role": "assistant"}
            job.tell(Chunk(role | {"content": text[len(job.said) :]}))
            job.said = text
        if ended or full:
            job.done = "stop" if ended else "length"
            usage = {"prompt_tokens": len(job.prompt), "completion_tokens": len(job.ids)}
            usage["total_tokens"] = sum(usage.values())
            job.tell(Chunk({}, job.done, usage))

    def end(self) -> None:
        """All rows have ended."""


class _Done(StoppingCriteria):  # type: ignore[misc]
    """Ends each row where its own limit or stop is, or nobody listens."""

    def __init__(self, jobs: Sequence[_Job]) -> None:
        self.jobs = jobs

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Whether each row has ended."""
        return torch.tensor([job.done is not None for job in self.jobs], device=input_ids.device)


def _overlap(text: str, stop: str) -> int:
    """How much of the end of a text may be the beginning of a stop."""
    return max((n for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
