"""The configuration of a server. Its fields are the only place of a default, a range and a help text."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from editloop.autopilot.config import AutopilotConfig
from editloop.configuration import Configuration, setting
from editloop.online.config import BanditConfig
from editloop.serve.api.limits import Limits
from editloop.serve.in_context.base import InContextOptions
from editloop.serve.in_context.name import InContextName
from editloop.serve.in_context.similarity import SIMILARITIES

__all__ = ["BROWSER", "DAY", "ServeConfig"]

DAY = 86_400.0
"""Seconds."""

ADDRESS, BROWSER, RUNNING, PAST_EDITS, KEPT, LEARNING, LIMITS = (
    "Address",
    "Edits from a browser",
    "Where policies run",
    "Past edits in prompts",
    "What is learned and kept",
    "Learning by itself",
    "Limits on requests",
)


class ServeConfig(Configuration):
    """The configuration of `editloop serve`. `ServeConfig.model_fields` has a description of every field."""

    host: str = setting(
        "127.0.0.1",
        "The address to listen on; without keys, it must be a loopback address.",
        section=ADDRESS,
        common=True,
    )
    port: int = setting(8040, "The port; 0 takes a free one.", section=ADDRESS, common=True, ge=0, le=65535)
    workers: int = setting(
        1,
        "Processes that answer at this address, each a replica with a state folder of its own; more than one "
        "need a store on PostgreSQL.",
        section=ADDRESS,
        common=True,
        ge=1,
        le=256,
    )
    edit_tokens: bool = setting(
        False,
        "Give an edit token with each response, with which a web page sends its edit without a key. "
        "--allow-origin implies it.",
        section=BROWSER,
    )
    edit_token_minutes: float = setting(
        60.0, "Minutes for which an edit token is valid.", section=BROWSER, gt=0, le=10_080
    )
    upstream: str | None = setting(
        None,
        "URL, with /v1, of an OpenAI-compatible server that runs the policies, such as vLLM.",
        section=RUNNING,
        common=True,
    )
    backend: str | None = setting(
        None,
        "The backend that runs the policies; by default upstream if --upstream is given, else local.",
        section=RUNNING,
    )
    upstream_base: str | None = setting(
        None, "The name of the base model on the upstream server.", section=RUNNING
    )
    upstream_timeout: float = setting(
        120.0,
        "Maximum seconds until a response, over all arms that are tried, and between two parts of a stream.",
        section=RUNNING,
        ge=0.1,
    )
    upstream_logprobs: bool = setting(
        False,
        "Ask the upstream server for the log-probabilities of its tokens, and keep their sum with each "
        "response. They have to be those before temperature and top-p, as vLLM gives them by default.",
        section=RUNNING,
    )
    max_new_tokens: int = setting(
        512, "Maximum tokens of a response, if its request sets no limit.", section=RUNNING, ge=1
    )
    best_of: int = setting(
        1,
        "Drafts of a response, of which the one with the least predicted cost is given, where the cost model "
        "of the policy's run predicts the costs of new contexts; only for policies in this process.",
        section=RUNNING,
        ge=1,
        le=16,
    )
    in_context: tuple[str, ...] = setting(
        (),
        "Arms that put a user's past edits into the prompt: retrieval, preference, or in full "
        "retrieval-4:base, the number of edits and the policy that is asked.",
        section=PAST_EDITS,
        common=True,
    )
    similarity: str = setting(
        "words",
        "By what past edits are found: words, meaning (extra embeddings), or a similarity of an installed "
        "package.",
        section=PAST_EDITS,
    )
    in_context_characters: int = setting(
        6000, "Maximum characters of the past edits in a prompt.", section=PAST_EDITS, ge=1
    )
    scope: Literal["user", "all"] = setting(
        "all",
        "all: one bandit for all users, of which it knows who asks; user: each user has a bandit, which also "
        "learns from the others' edits.",
        section=KEPT,
        common=True,
    )
    bandit: BanditConfig = setting(BanditConfig(), "How arms are chosen.", section=KEPT, flat=True)
    reprice: bool = setting(False, "Measure all edits in the store again, by --cost.", section=KEPT)
    expire_days: float = setting(
        7.0, "Days after which a response expires, so that no edit is expected.", section=KEPT, ge=0
    )
    keep_days: float | None = setting(
        None, "Days after which texts are removed; by default never.", section=KEPT, common=True, ge=0
    )
    redact: str | None = setting(
        None, "MODULE:FUNCTION that is applied to each text before it is kept.", section=KEPT, common=True
    )
    learn: bool = setting(
        False,
        "Start an autopilot beside the server, which fits again when it pays, and moves new policies through "
        "shadow and canary to the arms.",
        section=LEARNING,
        common=True,
    )
    autopilot: AutopilotConfig = setting(AutopilotConfig(), "What the autopilot does.", section=LEARNING)
    otel_endpoint: str | None = setting(
        None,
        "The address of an OpenTelemetry collector (OTLP over HTTP, without /v1/traces), which gets a span "
        "of each completion and each edit [$OTEL_EXPORTER_OTLP_ENDPOINT].",
        section=KEPT,
    )
    rate: float | None = setting(None, "Maximum requests per second of a key.", section=LIMITS, ge=0.001)
    concurrency: int = setting(512, "Maximum requests that are answered at once.", section=LIMITS, ge=1)
    key_share: float = setting(
        0.75, "The share of --concurrency that one key may have.", section=LIMITS, ge=0.01, le=1
    )
    body_timeout: float = setting(
        30.0, "Seconds in which the body of a request must arrive.", section=LIMITS, ge=0.1
    )
    max_body: int = setting(2 * 2**20, "Maximum bytes of a request.", section=LIMITS, ge=1)
    max_batch: int = setting(256 * 2**20, "Maximum bytes of a batch of edits.", section=LIMITS, ge=1)
    max_text: int = setting(200_000, "Maximum characters of a text.", section=LIMITS, ge=1)

    @field_validator("in_context")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(InContextName.parse(name)) for name in names)

    @field_validator("similarity")
    @classmethod
    def _similar(cls, name: str) -> str:
        SIMILARITIES.get(name)
        return name

    def past_edits(self) -> InContextOptions:
        """Return the options of in-context policies."""
        return InContextOptions(self.in_context, self.similarity, self.in_context_characters)

    def limits(self, answer_seconds: float | None) -> Limits:
        """Return the limits on requests.

        Args:
            answer_seconds: The backend's `answer_seconds`: seconds in which a request must be answered; None
                sets no limit.
        """
        return Limits(
            body=self.max_body,
            batch=self.max_batch,
            text=self.max_text,
            rate=self.rate,
            concurrency=self.concurrency,
            share=self.key_share,
            body_seconds=self.body_timeout,
            answer_seconds=answer_seconds,
        )
