"""The schemas of requests: their fields and limits. Errors have the form of OpenAI's API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from editloop.autopilot.stages import Stage
from editloop.io import UnsafeJSONError, parse_json
from editloop.serve.client_base import ID as PLAIN_ID
from editloop.serve.client_base import MAX_REASON, MAX_SECONDS
from editloop.serve.loop.choices import MAX_CHOICES
from editloop.serve.loop.completion import CLIENT_KEY
from editloop.serve.problem import Problem
from editloop.store.keys import Role

__all__ = [
    "ID",
    "ChatRequest",
    "EditRequest",
    "EditRow",
    "KeyRequest",
    "PauseRequest",
    "PromoteRequest",
    "ReasonRequest",
    "StageRequest",
    "check_client_key",
    "check_texts",
    "check_value",
    "documented",
    "parse",
]

Asked = TypeVar("Asked", bound=BaseModel)

MAX_DEPTH = 64
"""Maximum number of nested arrays and objects; the code behind this walks through them recursively."""

EPOCH = datetime.fromtimestamp(0, UTC)

ID = rf"^{PLAIN_ID}$"


def check_client_key(metadata: dict[str, Any] | None) -> dict[str, Any] | None:
    """Metadata, after a check of the key in it by which the client will find the response.

    Raises:
        PydanticCustomError: The key is no text of 1 to 128 characters.
    """
    key = (metadata or {}).get(CLIENT_KEY, "unused")
    if not isinstance(key, str) or not 1 <= len(key) <= 128:
        raise PydanticCustomError("key", f"{CLIENT_KEY} is a text of 1 to 128 characters")
    return metadata


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ChatMessage(BaseModel):
    """One message; other fields are passed on to the model's server."""

    model_config = ConfigDict(extra="allow")

    role: str = Field(min_length=1, max_length=64)
    content: str | list[dict[str, Any]] | None = None


class ChatRequest(BaseModel):
    """A request for a response, as in OpenAI's API; other fields are passed on to the model's server."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(min_length=1, max_length=200, description="`editloop`, or the name of an arm")
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = Field(None, ge=1, le=1_000_000)
    max_completion_tokens: int | None = Field(None, ge=1, le=1_000_000)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1, description="Choices, at most 8, each with an id of its own")
    stop: str | list[str] | None = None
    user: str | None = Field(
        None, min_length=1, max_length=256, description="Who edits; it counts in the choice"
    )
    metadata: dict[str, Any] | None = None
    id: str | None = Field(None, pattern=ID, description="The response's id, if the client chooses it")

    @field_validator("n")
    @classmethod
    def _few(cls, n: int | None) -> int | None:
        if n is not None and n > MAX_CHOICES:
            what = "a request has at most {most} choices: send several requests"
            raise PydanticCustomError("few", what, {"most": MAX_CHOICES})
        return n

    _key = field_validator("metadata")(check_client_key)


class EditRequest(_Request):
    """What a user made of a response, which is one of this server's or comes from elsewhere."""

    response_id: str | None = Field(
        None, pattern=ID, description=f"Or, in its place, `metadata` with the response's own `{CLIENT_KEY}`"
    )
    edit: str | None = Field(None, description="The text as the user left it")
    accepted: Literal[True] | None = Field(None, description="Instead of `edit`: it was left unchanged")
    discarded: Literal[True] | None = Field(
        None, description="Instead of `edit`: the user threw it away, wrote their own, or asked again"
    )
    revision: int | None = Field(None, ge=1, le=1_000_000, description="By default the next one")
    key: str | None = Field(None, min_length=1, max_length=128, description="Idempotency key")
    seconds: float | None = Field(
        None, ge=0, le=MAX_SECONDS, allow_inf_nan=False, description="Of work on it since the last revision"
    )
    token: str | None = Field(
        None, min_length=1, max_length=300, description="Edit token of the response, in place of a key"
    )
    context: str | list[ChatMessage] | None = Field(None, description="Of a response from elsewhere")
    response: str | None = Field(
        None, description="Of a response from elsewhere; or the text as it was generated, if it was not kept"
    )
    policy: str | None = Field(None, max_length=200, description="What wrote it")
    user: str | None = Field(None, min_length=1, max_length=256)
    metadata: dict[str, Any] | None = None
    reason: str | None = Field(
        None, min_length=1, max_length=MAX_REASON, description="Why the user did that, in words or as tags"
    )

    _key = field_validator("metadata")(check_client_key)

    @field_validator("response")
    @classmethod
    def _not_blank(cls, response: str | None) -> str | None:
        if response is not None and not response.strip():
            raise PydanticCustomError("blank", "a blank response cannot be learned from")
        return response

    @model_validator(mode="after")
    def _check(self) -> EditRequest:
        if [self.edit, self.accepted, self.discarded].count(None) != 2:
            raise PydanticCustomError("either", "give one of edit, accepted: true and discarded: true")
        if self.is_external:
            if self.response is None:
                raise PydanticCustomError("both", "a response from elsewhere has a context and a response")
            return self
        named = self.response_id or self.client_key
        if self.response is not None and (self.edit is None or not named):
            raise PydanticCustomError("both", "give a response with the context, or beside the edit of it")
        if not named:
            raise PydanticCustomError(
                "which", f"give a response_id, metadata with {CLIENT_KEY} alone, or context and response"
            )
        if self.policy is not None or self.user is not None or (self.metadata and not self.client_key):
            raise PydanticCustomError(
                "known", "leave out user, policy and metadata: the server knows them for this response"
            )
        return self

    @property
    def is_external(self) -> bool:
        """Whether the response comes from elsewhere."""
        return self.context is not None

    @property
    def client_key(self) -> str | None:
        """The client's key of the response, if that takes the place of its id."""
        by_key = self.response_id is None and set(self.metadata or ()) == {CLIENT_KEY}
        return self.metadata[CLIENT_KEY] if by_key and self.metadata is not None else None


class EditRow(EditRequest):
    """A row of a batch: an edit, and when it was made."""

    time: datetime | None = Field(
        None, description="When the edit was made: seconds since 1970, or ISO 8601 [when the row arrives]"
    )

    @field_validator("time")
    @classmethod
    def _past(cls, time: datetime | None) -> datetime | None:
        if time is None:
            return None
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time
        # A clock may be fast; but an edit of tomorrow would be missing from every log that is read until now.
        if not EPOCH <= time <= datetime.now(UTC) + timedelta(days=1):
            raise PydanticCustomError("time", "a time lies between 1970 and now")
        return time


class StageRequest(_Request):
    """A move of a policy to another stage."""

    subject: str = Field(max_length=200, description="The policy's permanent name")
    stage: Stage = Field(description="The stage that it gets")
    reason: str | None = Field(None, max_length=1000, description="Why, for the record")


class PauseRequest(_Request):
    """Whether the autopilot is paused."""

    paused: bool


class ReasonRequest(_Request):
    """Why a draft was edited."""

    reason: str | None = Field(
        None, min_length=1, max_length=MAX_REASON, description="In words or as tags; null takes it away"
    )


class KeyRequest(_Request):
    """A new key."""

    name: str = Field(min_length=1, max_length=64, description="By which it is shown and revoked")
    role: Role = Field("app", description="app may ask for drafts and send edits; admin may do everything")

    @field_validator("name")
    @classmethod
    def _visible(cls, name: str) -> str:
        if name != name.strip() or not name.isprintable():
            raise PydanticCustomError("name", "a name has visible characters, and no blanks at its ends")
        return name


class PromoteRequest(_Request):
    """Policies of a run that become arms."""

    run: str = Field(min_length=1, max_length=4096, description="The run folder, as the server sees it")
    policies: list[str] | None = Field(None, min_length=1, description="By default all that were trained")
    replace: bool = Field(False, description="Retire all other arms, but not those of --in-context")
    force: bool = Field(False, description="Even if offline evaluation advises against it")
    user: str | None = Field(
        None, min_length=1, max_length=256, description="Whose arms they are; by default everybody's"
    )


def parse(kind: type[Asked], body: bytes) -> Asked:
    """The request that a body holds.

    Raises:
        Problem: 400, naming the field at fault, or why the body is not JSON that all parsers read alike.
    """
    try:
        found = parse_json(body)
        _check_depth(found, body)
        return kind.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or None
        what = f"{where}: {first['msg']}" if where else first["msg"]
        raise Problem(400, what, code="invalid_request", param=where) from None
    except UnsafeJSONError as error:
        raise Problem(400, f"JSON that is not accepted: {error}", code="invalid_json") from None
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"not JSON in UTF-8: {error}", code="invalid_json") from None


def _check_depth(value: Any, body: bytes) -> None:
    """Refuse a body that is nested too deeply for the recursive code behind this.

    Raises:
        UnsafeJSONError: It has more than `MAX_DEPTH` levels.
    """
    # Counting brackets is quick and settles nearly all requests: without that many, it cannot be that deep.
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MAX_DEPTH + 1):
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
        level = [each for each in level if isinstance(each, (dict, list))]
        if not level:
            return
    raise UnsafeJSONError(f"nested too deeply, more than {MAX_DEPTH} levels")


def check_texts(request: BaseModel, longest: int) -> dict[str, Any]:
    """The fields that were given, after a check that all texts in them can be stored.

    Args:
        request: The request.
        longest: Maximum number of characters of a text.

    Raises:
        Problem: 413 for a text that is too long; 400 for one with NUL or with half of a surrogate pair.
    """
    given = request.model_dump(exclude_unset=True)
    check_value(given, longest)
    return given


def check_value(value: dict[str, Any], longest: int) -> None:
    """Check that all texts in a value can be stored; see `check_texts`."""
    _check(value, longest, ())


def _check(value: Any, longest: int, path: tuple[str, ...]) -> None:
    if isinstance(value, str):
        where = ".".join(path)
        if len(value) > longest:
            raise Problem(
                413, f"{where} is longer than {longest} characters", code="text_too_long", param=where
            )
        if "\0" in value or not _is_unicode(value):
            raise Problem(400, f"{where} is not valid text", code="invalid_text", param=where)
    elif isinstance(value, dict):
        for key, each in value.items():
            _check(str(key), longest, path)
            _check(each, longest, (*path, str(key)))
    elif isinstance(value, list):
        for i, each in enumerate(value):
            _check(each, longest, (*path, str(i)))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def documented(kind: type[BaseModel]) -> dict[str, Any]:
    """A request's body for the OpenAPI document.

    Routes read their bodies themselves, with a stricter parser than FastAPI's, so FastAPI cannot describe
    them. References are replaced by what they refer to: FastAPI collects only the schemas of its own bodies.
    """
    schema = kind.model_json_schema(ref_template="{model}")
    parts = schema.pop("$defs", {})

    def whole(value: Any) -> Any:
        if isinstance(value, dict):
            return whole(parts[value["$ref"]]) if "$ref" in value else {k: whole(v) for k, v in value.items()}
        return [whole(each) for each in value] if isinstance(value, list) else value

    return {"requestBody": {"required": True, "content": {"application/json": {"schema": whole(schema)}}}}
