"""The LLM user: judges whether a response suits a style, and revises it if not.

It uses any OpenAI-compatible endpoint through the `openai` client, which retries failed and rate-limited
requests with growing pauses. Every answer is kept in a transcript, a JSONL file that is also the cache: no
question is asked twice, not even after a restart. This module does not know where contexts and styles come
from.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editloop.errors import BudgetError, ConfigError, UserError
from editloop.extras import requires
from editloop.journal import append_rows, read_rows

if TYPE_CHECKING:
    from openai import OpenAI

__all__ = ["LLMSettings", "LLMUser"]

JUDGE = (
    "You are a writer with fixed habits. You only ever use text in this style: {style}.\n\n"
    "The task was:\n{context}\n\nA draft:\n{response}\n\n"
    "Could you use this draft as it is? Answer with one word, yes or no."
)
REVISE = (
    "You are a writer with fixed habits. You only ever use text in this style: {style}.\n\n"
    "The task was:\n{context}\n\nA draft:\n{response}\n\n"
    "Revise the draft so that it has your style. Keep what is right word for word, change as little as you "
    "can, and answer with the revised text alone."
)


@dataclass(frozen=True)
class LLMSettings:
    """Which LLM is asked, and how.

    Attributes:
        model: The model's name at the endpoint.
        base_url: The endpoint, up to `/v1`.
        api_key: The key; None takes the one in the environment variable `OPENAI_API_KEY`.
        temperature: The temperature of its answers.
        max_tokens: The most tokens of an answer.
        timeout: Seconds after which a request is abandoned and tried again.
        retries: How often a failed request is tried again.
        concurrency: The most requests at a time in `edit_many`.
        budget: The most requests that a transcript may hold in all; None for no limit.
    """

    model: str
    base_url: str | None = None
    api_key: str | None = None
    temperature: float = 0.0
    max_tokens: int = 1024
    timeout: float = 60.0
    retries: int = 5
    concurrency: int = 4
    budget: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_tokens", "timeout", "concurrency"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be positive", seen=getattr(self, name))
        if self.retries < 0 or (self.budget is not None and self.budget < 0):
            raise ConfigError("retries and budget are at least 0", seen=(self.retries, self.budget))


class LLMUser:
    """A user played by an LLM: q(y' | x, y) of the paper's experiments.

    Args:
        settings: Which LLM is asked, and how.
        style: The style that the user wants, in words; or a function that returns it for a context.
        transcript: The file for answers; None keeps them in memory only.
        name: The name under which the user's edits are logged.

    Raises:
        ConfigError: The `openai` package or the key is missing.
        UserError: The transcript is damaged.
    """

    def __init__(
        self,
        settings: LLMSettings,
        style: str | Callable[[str], str],
        *,
        transcript: Path | str | None = None,
        name: str = "llm",
    ) -> None:
        self.llm, self.name = settings, name
        self._style = style
        self._ledger = _Ledger(settings, Path(transcript) if transcript else None)

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `User.settings`: the model and how it is asked; not a style that depends on the context."""
        asked = {key: getattr(self.llm, key) for key in ("model", "base_url", "temperature", "max_tokens")}
        return asked | {"style": None if callable(self._style) else self._style}

    @property
    def requests(self) -> int:
        """The number of requests that were answered, those of earlier runs in the transcript included."""
        return len(self._ledger.answers)

    def with_style(self, style: str | Callable[[str], str]) -> LLMUser:
        """Return a user with another style, who shares the LLM, its transcript and its budget."""
        other = copy(self)
        other._style = style
        return other

    def edit(self, context: str, response: str, *, round: int = 0) -> str:
        """Return the response if it suits the style, else its revision.

        Args:
            context: What was asked for.
            response: The draft.
            round: The number of the round; the same draft is judged anew in another round.

        Raises:
            UserError: The endpoint is down, refuses, or gives an answer that cannot be used; or the budget
                is spent.
        """
        style = self._style(context) if callable(self._style) else self._style
        parts = {"style": style, "context": context, "response": response}
        verdict = self._ledger.ask(JUDGE.format(**parts), round, _verdict)
        if _verdict(verdict):
            return response
        return self._ledger.ask(REVISE.format(**parts), round, _revision).strip()

    def edit_many(self, contexts: Sequence[str], responses: Sequence[str], *, round: int = 0) -> list[str]:
        """Return the edits of many responses in their order, asking for `concurrency` at a time."""
        with ThreadPoolExecutor(self.llm.concurrency) as pool:
            return list(
                pool.map(lambda pair: self.edit(*pair, round=round), zip(contexts, responses, strict=True))
            )


def _verdict(answer: str) -> bool:
    """Return whether the draft suits the style.

    Raises:
        UserError: The answer is neither yes nor no.
    """
    word = answer.strip().lower().lstrip("*\"'")
    if not word.startswith(("yes", "no")):
        raise UserError("the user's verdict is neither yes nor no", seen=word, do="use another model")
    return word.startswith("yes")


def _revision(answer: str) -> None:
    if not answer.strip():
        raise UserError("the user's revision is empty", seen=answer)


class _Ledger:
    """The questions to an LLM and its answers, in memory and in a file."""

    def __init__(self, settings: LLMSettings, transcript: Path | None) -> None:
        self.settings, self.transcript = settings, transcript
        self.answers = _read(transcript) if transcript else {}
        self.asking = 0
        self.lock = threading.Lock()
        self.turns: dict[str, threading.Lock] = {}
        self.client = _client(settings)

    def ask(self, prompt: str, round: int, check: Callable[[str], object]) -> str:
        """Return the answer to a question, asking the LLM if it was not asked before.

        Args:
            prompt: The question.
            round: The round; each round has an answer of its own.
            check: Raises if the answer cannot be used; then it is not kept.
        """
        about = [self.settings.model, self.settings.temperature, self.settings.max_tokens, round, prompt]
        key = hashlib.sha256(json.dumps(about).encode()).hexdigest()
        with self.lock:
            turn = self.turns.setdefault(key, threading.Lock())
        # A thread with the same question waits for the first one's answer. Asked twice, the LLM might answer
        # in two ways, and a restart would find one of them only.
        with turn:
            answer = self._ask(key, prompt, round, check)
        with self.lock:
            self.turns.pop(key, None)
        return answer

    def _ask(self, key: str, prompt: str, round: int, check: Callable[[str], object]) -> str:
        with self.lock:
            if key in self.answers:
                return self.answers[key]
            # Requests in flight count as spent: otherwise as many threads as there are could pass the budget.
            spent = len(self.answers) + self.asking
            if self.settings.budget is not None and spent >= self.settings.budget:
                raise BudgetError("the budget of requests is spent", seen=spent, do="give a larger one")
            self.asking += 1
        try:
            answer, usage = self._request(prompt)
            check(answer)
        except BaseException:
            with self.lock:
                self.asking -= 1
            raise
        # From a request in flight to an answer in one step: in between, it would not count in the budget.
        with self.lock:
            self.asking -= 1
            self.answers[key] = answer
            if self.transcript:
                row = {"key": key, "model": self.settings.model, "round": round, "prompt": prompt}
                append_rows(self.transcript, [row | {"answer": answer, "usage": usage}])
        return answer

    def _request(self, prompt: str) -> tuple[str, dict[str, Any] | None]:
        from openai import OpenAIError

        try:
            reply = self.client.chat.completions.create(
                model=self.settings.model,
                messages=[{"role": "user", "content": prompt}],
                temperature=self.settings.temperature,
                max_tokens=self.settings.max_tokens,
            )
            content, reason = reply.choices[0].message.content, reply.choices[0].finish_reason
        except OpenAIError as error:
            raise UserError(
                f"no answer after {self.settings.retries + 1} tries",
                seen=f"{type(error).__name__}: {error}",
                do=f"check whether {self.client.base_url} is up",
            ) from error
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise UserError("the endpoint's answer is not a chat completion", seen=str(error)) from error
        if not isinstance(content, str):
            raise UserError("the endpoint's answer has no text", seen=content)
        if reason == "length":
            raise UserError(
                f"the answer was cut after {self.settings.max_tokens} tokens", seen=content, do="allow more"
            )
        return content, reply.usage.model_dump() if reply.usage else None


def _client(settings: LLMSettings) -> OpenAI:
    requires("llm")
    from openai import OpenAI, OpenAIError

    try:
        return OpenAI(
            base_url=settings.base_url,
            api_key=settings.api_key,
            timeout=settings.timeout,
            max_retries=settings.retries,
        )
    except OpenAIError as error:
        raise ConfigError("the LLM user needs a key", do="set OPENAI_API_KEY") from error


def _read(path: Path) -> dict[str, str]:
    """The answers of a transcript by key."""
    try:
        return {row["key"]: row["answer"] for row in read_rows(path, UserError)}
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is not a transcript", seen=str(error), do="choose another file") from error
