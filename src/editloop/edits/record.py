"""One row of an edit log: a context, the response that a policy gave, and what the user made of it.

The record is kept once; supervision, preferences and costs are views of it (`views.py`). It does not know
where it came from (`reading.py`) or what an edit costs (`cost`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

Status = Literal["edited", "accepted", "discarded", "pending", "expired"]
"""`edited` and `accepted` are observed. `discarded` was thrown away, so there is no edit to learn from;
`pending` waits for the user; `expired` never got an answer."""

LONE_SURROGATE = "lone surrogate, not valid Unicode text"


def _wrong(reason: str) -> PydanticCustomError:
    """Return a validation error. Its text must be fixed and hold no value of the row: reasons are counted."""
    return PydanticCustomError("record", reason)


def _as_text(value: object) -> object:
    """Return a name that is a number as CSV would hold it: 12.0 as 12, and NaN as an empty cell.

    pandas turns integers into floats where a column has gaps, and gaps into NaN.
    """
    if isinstance(value, float):
        return "" if math.isnan(value) else int(value) if value.is_integer() else value
    return value


def _empty_is_none(value: object) -> object:
    return None if _as_text(value) == "" else value


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _wrong(LONE_SURROGATE) from None
    return text


def _not_blank(response: str) -> str:
    if not response or response.isspace():
        raise _wrong("empty")
    return response


def _utc(time: datetime) -> datetime:
    if time.tzinfo is None:
        return time.replace(tzinfo=UTC)
    try:
        return time.astimezone(UTC)
    except OverflowError:  # a time on the first or last day that datetime can hold, in another zone
        raise _wrong("outside the years 1 to 9999") from None


def _utc_or_none(time: datetime | None) -> datetime | None:
    return None if time is None else _utc(time)


def _read_time(value: object) -> object:
    """Convert the ways in which logs write a time to those that pydantic reads.

    Pydantic reads ISO 8601, a date alone, and epoch seconds or milliseconds. This adds the dates of mail and
    HTTP (RFC 2822), "UTC" after a time, and epoch micro- and nanoseconds.
    """
    if isinstance(value, str):
        text = value.strip()
        if text[4:5] == "-" and not text.endswith(("C", "c")):
            return text  # ISO 8601, by far the most frequent, without an attempt at anything else
        if text.upper().endswith("UTC"):
            text = text[:-3].rstrip() + "Z"
        # RFC 2822: "Wed, 4 Mar 2026 05:06:07 GMT", or without the weekday, "4 Mar 2026 05:06:07 GMT".
        if text[:1].isalpha() or (text[:2].strip().isdigit() and " " in text[:3]):
            with suppress(ValueError, TypeError, IndexError, OverflowError):
                return parsedate_to_datetime(value)
        try:
            value = float(text)
        except ValueError:
            return text
    # 1e14 milliseconds are the year 5138, but 1e14 microseconds are 1973; 1e17 nanoseconds are 1973, too. So
    # the size alone tells the unit of every time after 1973.
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) >= 1e14:
        return value / (1e6 if abs(value) < 1e17 else 1e9)
    return value


def _json_only(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata after JSON and back, so that a record is equal to itself written and read again."""
    if not metadata:
        return metadata
    try:
        text = json.dumps(metadata, ensure_ascii=False, allow_nan=False, default=str)
        text.encode()
        kept: dict[str, Any] = json.loads(text)
    except UnicodeEncodeError:
        raise _wrong(LONE_SURROGATE) from None
    except (ValueError, TypeError, RecursionError):
        raise _wrong("not what JSON can hold") from None
    return kept


Text = Annotated[str, AfterValidator(_unicode)]
Name = Annotated[str, Field(coerce_numbers_to_str=True), AfterValidator(_unicode), BeforeValidator(_as_text)]
OptionalName = Annotated[Name | None, BeforeValidator(_empty_is_none)]


def _is_text_part(part: object) -> bool:
    """Whether this is a text part of a message's content in OpenAI's API."""
    return isinstance(part, Mapping) and set(part) == {"type", "text"} and isinstance(part["text"], str)


class Message(BaseModel):
    """One message of a chat: its role and its text, which may be given in parts.

    Other keys are errors unless they are null: to drop a tool call would silently change the prompt.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Annotated[Text, Field(min_length=1)]
    content: Text

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        # A null role or content stays, so that the error says what is wrong with it.
        message = {k: v for k, v in values.items() if v is not None or k in ("role", "content")}
        parts = message.get("content")
        if isinstance(parts, list) and parts and all(map(_is_text_part, parts)):
            message["content"] = "".join(part["text"] for part in parts)
        return message


Context = Text | tuple[Message, ...]
"""What the policy was asked: plain text, or a chat of at least one message."""


def context_text(context: Context) -> str:
    """Return a context as one text, for people and for prompts: each message of a chat follows its role."""
    if isinstance(context, str):
        return context
    return "\n".join(f"{message.role}: {message.content}" for message in context)


class Record(BaseModel):
    """One response of a policy and what its user did with it.

    Attributes:
        id: The key of the record, unique in its log. By default it is made from the content (`fingerprint`),
            so that it does not depend on the order of the rows.
        context: A text, or a chat.
        response: What the policy wrote; not blank.
        edit: What the user made of the response. It may be empty (the user deleted everything). None means
            that no edit was seen, which is not a cost of zero.
        status: By default it follows from the edit: `pending` without one, `accepted` if it equals the
            response, else `edited`. `accepted` without an edit takes the response as its edit. A status that
            contradicts the edit is an error.
        user: The user who edited.
        policy: The policy that answered.
        propensity: The probability, in (0, 1], with which that policy was chosen.
        logprob: The log-probability of the response by that policy, in nats: the sum over all its tokens, at
            temperature 1 and over the whole vocabulary, however it was sampled. At most 0.
        time: The time of the edit, with a time zone, in UTC. It may be given in ISO 8601 (in UTC where no
            zone is given), as a date alone, in RFC 2822, or in seconds since 1970; numbers that would be
            centuries ahead as seconds are milli-, micro- or nanoseconds.
        metadata: Anything else that JSON can represent; other values become their text.

    Raises:
        pydantic.ValidationError: A field is missing, has the wrong type, or contradicts another.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Name = ""
    context: Context = Field(union_mode="left_to_right")
    response: Annotated[Text, AfterValidator(_not_blank)]
    edit: Text | None = None
    status: Status = "pending"
    user: OptionalName = None
    policy: OptionalName = None
    propensity: Annotated[float, Field(gt=0, le=1)] | None = None
    logprob: Annotated[float, Field(le=0, allow_inf_nan=False)] | None = None
    time: Annotated[datetime | None, BeforeValidator(_read_time), AfterValidator(_utc_or_none)] = None
    metadata: Annotated[dict[str, Any], AfterValidator(_json_only)] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _derive_status(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        # A null is the same as a missing field, so that the defaults apply to it.
        row = {key: value for key, value in values.items() if value is not None}
        edit, response = row.get("edit"), row.get("response")
        if "status" not in row:
            row["status"] = "pending" if edit is None else "accepted" if edit == response else "edited"
        elif row["status"] == "accepted" and edit is None and response is not None:
            row["edit"] = response
        return row

    @model_validator(mode="after")
    def _check(self) -> Record:
        if self.context == ():
            raise _wrong("a chat context without messages")
        if self.status == "edited" and self.edit is None:
            raise _wrong("status is edited but there is no edit")
        if self.status == "edited" and self.edit == self.response:
            raise _wrong("status is edited but the edit equals the response")
        if self.status == "accepted" and self.edit != self.response:
            raise _wrong("status is accepted but the edit differs from the response")
        if not self.is_observed and self.edit is not None:
            raise _wrong(f"status is {self.status} but there is an edit")
        if not self.id:
            # The model is frozen, but this validator is still part of making the record.
            object.__setattr__(self, "id", fingerprint(self))
        return self

    @property
    def is_observed(self) -> bool:
        """Whether the user's answer was seen: `edited` or `accepted`."""
        return self.status in ("edited", "accepted")

    @property
    def revisions(self) -> tuple[str, ...]:
        """The earlier revisions of the edit, the oldest first: the texts of `metadata["revisions"]`.

        A store fills them in. Whatever else a log has under that name is left out.
        """
        found = self.metadata.get("revisions")
        return tuple(each for each in found if isinstance(each, str)) if isinstance(found, list) else ()


def fingerprint(record: Record) -> str:
    """Return 32 hexadecimal digits made from context, response, edit and user.

    Two records with equal fingerprints are exact duplicates, whatever their ids are.
    """
    context = record.context
    if not isinstance(context, str):
        context = [[message.role, message.content] for message in context]  # type: ignore[assignment]
    text = json.dumps([context, record.response, record.edit, record.user], ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def explain(error: ValidationError) -> str:
    """Return in a few words why a row is not a record: `field: reason`, without the values of the row.

    Only the first error is given: a row is in quarantine for one reason, and reasons are counted.
    """
    errors = error.errors(include_url=False, include_input=False, include_context=False)
    first = errors[0]
    field = next((str(part) for part in first["loc"]), "")
    # A context has two types, and an error for each: that of the text says nothing if the context is a chat.
    if LONE_SURROGATE in (first["msg"], *(each["msg"] for each in errors if field == "context")):
        reason = LONE_SURROGATE
    elif first["type"] == "missing":
        reason = "missing"
    elif field == "context":
        reason = "neither text nor a chat of {role, content} messages"
    elif field == "status":
        reason = f"not one of {', '.join(get_args(Status))}"
    else:
        reason = first["msg"].replace("Input should be", "not")
    return f"{field}: {reason}" if field else reason
