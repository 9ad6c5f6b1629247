"""Questions to an LLM and its answers, which are kept: in memory, and in a transcript.

Any OpenAI-compatible endpoint answers, through the `openai` client, which retries failed and rate-limited
requests with growing pauses. A transcript is a JSONL file and the cache at once: no question is asked twice,
not even after a restart.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editloop.errors import BudgetError, ConfigError, UserError
from editloop.extras import requires
from editloop.journal import append_rows, read_rows

if TYPE_CHECKING:
    from openai import OpenAI

__all__ = ["LLMSettings", "Ledger"]


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


class Ledger:
    """The questions to an LLM and its answers, in memory and in a file.

    Args:
        settings: Which LLM is asked, and how.
        transcript: The file; None keeps the answers in memory only.

    Raises:
        ConfigError: The `openai` package or the key is missing.
        UserError: The transcript is damaged.
    """

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
