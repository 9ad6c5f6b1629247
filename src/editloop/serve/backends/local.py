"""Policies in this process: one base with the adapters of run folders on it, answering in batches.

A batch holds requests for any of the adapters, or for one whole model. It is made of the requests that wait
when the previous batch has ended, so a long response keeps others waiting. For many users at once there are
servers such as vLLM (`upstream.py`).

One thread generates. The event loop hands it jobs by a queue, and it hands their parts back to each job's
event loop. `_model_lock` keeps it from generating while another thread puts an adapter on the model.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import warnings
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from safetensors import SafetensorError

from editloop.edits.record import Message
from editloop.errors import EditLoopError, ModelError
from editloop.policy import Policy, RunFolder
from editloop.policy.sampling import trim_loops
from editloop.policy.verify import ADAPTER
from editloop.policy.weights import read_header
from editloop.serve.backends.base import (
    BackendOptions,
    BackendUnavailableError,
    Chunk,
    Completion,
    ServedPolicy,
    unused_parts,
)
from editloop.serve.backends.capabilities import IN_PROCESS, check_request, rejection
from editloop.serve.backends.local_batch import Job, generate
from editloop.serve.loop.logged_text import logged_context

__all__ = ["LocalBackend"]

BATCH_SIZE = 16
"""Maximum number of requests in one batch."""


class LocalBackend:
    """Policies on a base in this process.

    Args:
        max_new_tokens: Maximum tokens of a response, if a request sets no limit.
        options: Passed to `RunFolder.load_base`, for the base of the first run.
    """

    answer_seconds: float | None = None

    def __init__(self, *, max_new_tokens: int = 512, **options: Any) -> None:
        self._limit, self._options = max_new_tokens, options
        self._base: Policy | None = None
        self._model: Any = None
        self._policies: dict[str, ServedPolicy] = {}
        self._adapters: set[str] = set()
        self._whole: dict[str, Policy] = {}
        self._model_lock = threading.Lock()
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="policies", daemon=True)

    @classmethod
    def from_options(cls, options: BackendOptions) -> LocalBackend:
        """See `BackendFactory.from_options`."""
        return cls(max_new_tokens=options.max_new_tokens, device=options.device, dtype=options.dtype)

    def __str__(self) -> str:
        return "this process"

    @property
    def down(self) -> str | None:
        """See `Backend.down`."""
        return None

    async def start(self) -> None:
        """See `Backend.start`."""
        self._thread.start()

    async def stop(self) -> None:
        """See `Backend.stop`: requests that wait are answered first."""
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)

    async def prepare(self, policy: ServedPolicy) -> None:
        """See `Backend.prepare`: the first one loads the base."""
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
                    "this policy needs another base than the one that is loaded",
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
        """Put an adapter on the base, beside those that are there; or load a whole model.

        Raises:
            ModelError: The adapter's weights are not exactly those that the base's modules need.
        """
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
            with warnings.catch_warnings():  # PEFT only warns of missing weights; they are an error below
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
            # PEFT may have put its layers into the base's modules already. They are taken out again, together
            # with the attribute by which PEFT would take the base for one that still has adapters.
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
        """See `Backend.retire`. An adapter stays in memory, because jobs in the queue may still need it."""
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
            job.done = job.done or "stop"  # nobody waits any more, so its row of the batch can end

    def check(self, request: Mapping[str, Any]) -> None:
        """See `Backend.check`. It looks at the table of capabilities, and at the length of the prompt."""
        check_request(request, IN_PROCESS)
        if self._base is not None:
            self._prompt(request, self._base)

    def _prompt(self, request: Mapping[str, Any], base: Policy) -> tuple[int, ...]:
        """The tokens of the messages.

        Raises:
            UpstreamRejectedError: The messages are not all texts, or leave no room for a response.
        """
        context = logged_context(request["messages"], str)
        try:
            if not isinstance(context, str):
                context = tuple(Message.model_validate(each) for each in context)
            prompt = base.encoder.prompt(context)
        except (EditLoopError, ValueError) as error:
            raise rejection(f"this policy takes only messages with texts: {error}", "messages") from error
        if len(prompt) >= base.encoder.max_length:
            raise rejection(f"{len(prompt)} tokens leave no room for a response", "messages")
        return tuple(prompt)

    def _job(self, arm: str, request: Mapping[str, Any]) -> Job:
        """The job of a request, with the defaults of OpenAI's API."""
        assert self._base is not None
        prompt = self._prompt(request, self._base)
        room = self._base.encoder.max_length - len(prompt)
        asked = request.get("max_completion_tokens") or request.get("max_tokens") or self._limit
        settings = self._base.generation.unless_asked(request.get("temperature"), request.get("top_p"))
        seed = request.get("seed")
        stream = np.random.SeedSequence(None if seed is None else seed % 2**128)  # it takes no negative seed
        stop = request.get("stop") or ()
        stops = (stop,) if isinstance(stop, str) else tuple(map(str, stop))
        event_loop, whole = asyncio.get_running_loop(), self._whole.get(arm)
        return Job(arm, whole, prompt, min(room, asked), settings, stream, stops, event_loop)

    # In the thread that generates

    def _run(self) -> None:
        """Answer jobs in batches until None arrives in the queue, and then those that are left.

        A batch is the oldest job and those that fit it: the same model and the same settings. The others are
        kept, so each of them is the oldest at last.
        """
        kept: list[Job] = []
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
            alike = alike[:BATCH_SIZE]
            kept = [job for job in kept if job not in alike]
            try:
                with self._model_lock:
                    assert self._base is not None
                    model = self._model if first.whole is None else first.whole.model
                    generate(alike, self._base, model)
            except Exception as error:  # without this thread, every later request would wait forever
                for job in alike:
                    job.fail(error)
