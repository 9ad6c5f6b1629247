"""Policies in this process: one base with the adapters of run folders on it, and whole models beside it.

Requests for all adapters are generated together (`policy/continuous.py`): each of them joins at the next
token and leaves at its last one, whatever the others do. A whole model has a batch of its own. For many users
at once there are servers such as vLLM (`upstream.py`).

One thread does all work on the models, task by task: it begins jobs, draws a token for each of them, loads
and frees policies. It hands the parts of a response back to the event loop of its job.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from typing import Any, cast

import numpy as np

from editloop.edits import Context, Message
from editloop.errors import EditLoopError, ModelError
from editloop.policy import Policy, RunFolder
from editloop.policy.continuous import ContinuousBatch, SeparateRows, takes_row_cache
from editloop.policy.row_adapters import RowAdapters
from editloop.policy.sampling import trim_loops
from editloop.serve.backends.base import (
    BackendOptions,
    BackendUnavailableError,
    Chunk,
    Completion,
    ServedPolicy,
    as_asked,
)
from editloop.serve.backends.best_of import Chooser, given
from editloop.serve.backends.capabilities import IN_PROCESS, check_request, rejection
from editloop.serve.backends.local_job import Job
from editloop.serve.loop.logged_text import logged_context

__all__ = ["LocalBackend"]

log = logging.getLogger("editloop.serve")

Batch = ContinuousBatch | SeparateRows


class LocalBackend:
    """Policies on a base in this process.

    Args:
        max_new_tokens: Maximum tokens of a response, if a request sets no limit.
        best_of: Drafts of a response, of which the one with the least predicted cost is given, where the cost
            model of the policy's run may choose.
        options: Passed to `RunFolder.load_base`, for the base of the first run.
    """

    answer_seconds: float | None = None

    def __init__(self, *, max_new_tokens: int = 512, best_of: int = 1, **options: Any) -> None:
        self._limit, self._options = max_new_tokens, options
        self._chooser = Chooser(best_of)
        self._base: Policy | None = None
        self._adapters: RowAdapters | None = None
        self._batch_type: type[Batch] = ContinuousBatch
        self._policies: dict[str, ServedPolicy] = {}
        self._whole: dict[str, Policy] = {}
        self._batches: dict[str | None, Batch] = {}
        self._jobs: set[Job] = set()  # from the request on: their arms are kept before they begin, too
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="policies")

    @classmethod
    def from_options(cls, options: BackendOptions) -> LocalBackend:
        """See `BackendFactory.from_options`."""
        return cls(
            max_new_tokens=options.max_new_tokens,
            best_of=options.best_of,
            device=options.device,
            dtype=options.dtype,
        )

    def __str__(self) -> str:
        return "this process"

    @property
    def down(self) -> str | None:
        """See `Backend.down`."""
        return None

    async def start(self) -> None:
        """See `Backend.start`."""

    async def stop(self) -> None:
        """See `Backend.stop`: requests that wait are answered first."""
        await asyncio.get_running_loop().run_in_executor(self._worker, self._finish)
        self._worker.shutdown()

    async def prepare(self, policy: ServedPolicy) -> None:
        """See `Backend.prepare`: the first one loads the base."""
        await asyncio.get_running_loop().run_in_executor(self._worker, self._prepare, policy)

    async def retire(self, arm: str) -> None:
        """See `Backend.retire`. Requests that came before are still answered by it."""
        self._policies.pop(arm, None)
        self._worker.submit(self._unload)

    async def complete(self, arm: str, request: Mapping[str, Any], response_id: str) -> Completion:
        """See `Backend.complete`."""
        policy, n = self._policy(arm), self._drafts(arm, request)
        if n == 1:
            return await self._complete(arm, request, response_id)
        tasks = [asyncio.ensure_future(self._complete(arm, request, response_id, k)) for k in range(n)]
        try:
            drafts = await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # if one has failed, or nobody waits any more, none goes on
                task.cancel()
        assert self._base is not None and self._adapters is not None
        # Their cost model learned from contexts as applications send them.
        asked = _context(as_asked(request))
        about = policy.run, self._base, self._adapters, asked, drafts
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._worker, self._chooser.choose, *about
            )
        except RuntimeError:  # the backend has stopped meanwhile
            return given(drafts, [math.nan] * n)

    async def stream(self, arm: str, request: Mapping[str, Any], response_id: str) -> AsyncIterator[Chunk]:
        """See `Backend.stream`. Of several drafts, the one that is chosen comes in one part."""
        if self._drafts(arm, request) == 1:
            # Closed with this generator, and not when it is collected: nobody waits for its text any more.
            async with aclosing(self._parts(arm, request, response_id)) as parts:
                async for chunk in parts:
                    yield chunk
            return
        whole = await self.complete(arm, request, response_id)
        yield Chunk({"role": "assistant", "content": whole.text})
        yield Chunk({}, whole.finish, whole.usage, drafts=whole.drafts, logprob=whole.logprob)

    def _policy(self, arm: str) -> ServedPolicy:
        policy = self._policies.get(arm)
        if policy is None:
            raise BackendUnavailableError("missing", arm)
        return policy

    def _drafts(self, arm: str, request: Mapping[str, Any]) -> int:
        """How many drafts a request gets. Without chance, all of them would be the same."""
        policy = self._policy(arm)
        assert self._base is not None
        settings = self._base.generation.unless_asked(request.get("temperature"), request.get("top_p"))
        return 1 if settings.temperature == 0 else self._chooser.count(policy.run)

    async def _complete(
        self, arm: str, request: Mapping[str, Any], response_id: str, number: int = 0
    ) -> Completion:
        texts, finish, usage, logprob = [], "stop", None, None
        async for chunk in self._parts(arm, request, response_id, number):
            texts.append(chunk.delta.get("content", ""))
            finish, usage, logprob = chunk.finish or finish, chunk.usage or usage, chunk.logprob
        written = "".join(texts)
        text = trim_loops(written)
        known = logprob if text == written else None  # of a text without its loops it is not known
        return Completion(text, finish, {"role": "assistant", "content": text}, usage, logprob=known)

    async def _parts(
        self, arm: str, request: Mapping[str, Any], response_id: str, number: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """The parts of a draft as they are generated; the number of the draft names its random stream."""
        job = self._job(self._policy(arm).part_for(response_id).arm, request, number)
        self._jobs.add(job)
        self._worker.submit(self._begin, job)
        try:
            while True:
                part = await job.parts.get()
                if isinstance(part, Exception):
                    raise part
                yield part
                if part.finish is not None:
                    return
        finally:
            job.done = job.done or "stop"  # nobody waits any more, so its row is free from the next token on
            self._jobs.discard(job)
            if arm not in self._policies:  # retired meanwhile; this may have been the last that needed it
                with suppress(RuntimeError):  # the backend has stopped
                    self._worker.submit(self._unload)

    def check(self, request: Mapping[str, Any]) -> None:
        """See `Backend.check`. It looks at the table of capabilities, and at the length of the prompt."""
        check_request(request, IN_PROCESS)
        if self._base is not None:
            self._prompt(request, self._base)

    def tokens_left(self, request: Mapping[str, Any]) -> int:
        """See `CountsTokens.tokens_left`."""
        if self._base is None:
            raise ModelError("no policy is loaded yet")
        encoder = self._base.encoder
        return int(encoder.max_length - len(encoder.prompt(_context(request))))

    def _prompt(self, request: Mapping[str, Any], base: Policy) -> tuple[int, ...]:
        """The tokens of the messages.

        Raises:
            UpstreamRejectedError: The messages are not all texts, or leave no room for a response.
        """
        try:
            prompt = base.encoder.prompt(_context(request))
        except (EditLoopError, ValueError) as error:
            raise rejection(f"this policy takes only messages with texts: {error}", "messages") from error
        if len(prompt) >= base.encoder.max_length:
            raise rejection(f"{len(prompt)} tokens leave no room for a response", "messages")
        return tuple(prompt)

    def _job(self, arm: str, request: Mapping[str, Any], number: int) -> Job:
        """The job of a request, with the defaults of OpenAI's API."""
        assert self._base is not None
        prompt = self._prompt(request, self._base)
        room = self._base.encoder.max_length - len(prompt)
        asked = request.get("max_completion_tokens") or request.get("max_tokens") or self._limit
        settings = self._base.generation.unless_asked(request.get("temperature"), request.get("top_p"))
        seed = request.get("seed")
        key = (number,) if number else ()
        # It takes no negative seed.
        stream = np.random.SeedSequence(None if seed is None else seed % 2**128, spawn_key=key)
        stop = request.get("stop") or ()
        stops = (stop,) if isinstance(stop, str) else tuple(map(str, stop))
        is_whole = arm in self._whole
        return Job(
            prompt=prompt,
            max_tokens=min(room, asked),
            settings=settings,
            stream=stream,
            adapter=None if is_whole or arm.startswith("base@") else arm,
            whole=arm if is_whole else None,
            stops=stops,
            event_loop=asyncio.get_running_loop(),
        )

    # Tasks of the worker

    def _prepare(self, policy: ServedPolicy) -> None:
        folder = RunFolder(policy.run)
        record = folder.manifest().base
        if self._base is None:
            self._base = folder.load_base(**self._options)
            self._adapters = RowAdapters(self._base.model)
            together, reason = takes_row_cache(self._base.model)
            self._batch_type = ContinuousBatch if together else SeparateRows
            log.info("requests are generated %s (%s)", "together" if together else "one by one", reason)
        if record.fingerprint != self._base.fingerprint:
            what, do = "this policy needs another base than the one that is loaded", "serve it by --upstream"
            if record.name == self._base.base:
                what += f": other weights under the name {record.name}"
                do = "put back the base that it was fitted on, or fit again"
            raise ModelError(what, seen=str(policy.run), do=do)
        try:
            for part in policy.parts():
                if part.name != "base":
                    self._load(part.arm, part.name, folder)
        except Exception:
            self._unload()  # the parts of a mixture that were loaded before
            raise
        self._chooser.take(folder)
        self._policies[policy.arm] = policy

    def _load(self, arm: str, name: str, folder: RunFolder) -> None:
        """Put an adapter on the base, beside those that are there; or load a whole model.

        Raises:
            ModelError: It cannot be loaded.
        """
        assert self._base is not None and self._adapters is not None
        if arm in self._adapters.names or arm in self._whole:
            return
        place = folder.policy_path(name)
        if (place / "adapter_config.json").is_file():
            self._adapters.load(arm, place)
        else:
            self._whole[arm] = folder.load_policy(name, self._base)

    def _unload(self) -> None:
        """Free the memory of what no policy and no job needs."""
        needed = {part.arm for policy in list(self._policies.values()) for part in policy.parts()}
        # A copy, because the event loop's thread adds and removes jobs.
        needed |= {name for job in self._jobs.copy() if (name := job.adapter or job.whole)}
        for arm in self._whole.keys() - needed:
            del self._whole[arm]
        if self._adapters is not None:
            for arm in self._adapters.names - needed:
                self._adapters.remove(arm)

    def _begin(self, job: Job) -> None:
        """Add a job to the batch of its model."""
        assert self._base is not None
        if job.whole not in self._batches:
            if job.whole is None:
                batch = self._batch_type(self._base.model, self._adapters)
            else:
                batch = self._batch_type(self._whole[job.whole].model)
            self._batches[job.whole] = batch
            if len(self._batches) == 1:
                self._worker.submit(self._step)
        self._batches[job.whole].add(job)

    def _step(self) -> None:
        """Draw a token for each job, and do so again after the tasks that have come meanwhile."""
        self._draw()
        if self._batches:
            self._worker.submit(self._step)

    def _finish(self) -> None:
        """Draw tokens until no job is left."""
        while self._batches:
            self._draw()

    def _draw(self) -> None:
        """Draw a token for each job, one model after the other; models without jobs have no batch."""
        assert self._base is not None
        for whole, batch in list(self._batches.items()):
            try:
                for job, token in cast(list[tuple[Job, int]], batch.step()):
                    job.take(token, self._base.encoder)
            except Exception as error:  # without an end, the requests would wait forever
                for job in cast(list[Job], batch.rows):
                    job.fail(error)
            if not batch.rows:
                del self._batches[whole]


def _context(request: Mapping[str, Any]) -> Context:
    """What a request asks, as a context of the log."""
    context = logged_context(request["messages"], str)
    return context if isinstance(context, str) else tuple(Message.model_validate(each) for each in context)
