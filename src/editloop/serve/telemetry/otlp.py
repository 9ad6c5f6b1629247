"""OTLP over HTTP: the body of `POST /v1/traces` as spans, and its answer.

opentelemetry.io/docs/specs/otlp: protobuf or JSON, which may be compressed by gzip. Protobuf is turned into
the JSON of the same message, so that the rest knows one form. It needs the extra `otel`; JSON does not.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from editloop.errors import MissingExtraError
from editloop.extras import requires
from editloop.io import parse_json
from editloop.serve.problem import Problem

__all__ = ["JSON", "PROTOBUF", "Span", "answer", "read_spans", "unpacked"]

JSON, PROTOBUF = "application/json", "application/x-protobuf"


class Span(NamedTuple):
    """A span.

    Attributes:
        trace_id: 32 hexadecimal digits.
        span_id: 16 hexadecimal digits.
        time: When it ended, in seconds since 1970; 0 if that is not known.
        attributes: Its attributes, and those of its resource.
        events: The names and attributes of its events, in their order.
    """

    trace_id: str
    span_id: str
    time: float
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]


def unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    """Return a body without its compression.

    Args:
        body: The body.
        encoding: Its `Content-Encoding`.
        limit: The most bytes of the result.

    Raises:
        Problem: 415 for another encoding than gzip; 400 for a body that is damaged; 413 for one that is too
        long.
    """
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise Problem(415, "a body is compressed by gzip or not at all", code="encoding", seen=encoding)
    packed = zlib.decompressobj(wbits=31)
    try:
        found = packed.decompress(body, limit + 1)
    except zlib.error as error:
        raise Problem(400, f"not gzip: {error}", code="invalid_gzip") from None
    if len(found) > limit:
        raise Problem(413, f"the body unpacks to more than {limit} bytes", code="request_too_large")
    if not packed.eof:
        raise Problem(400, "the gzip body is cut off", code="invalid_gzip")
    return found


def read_spans(body: bytes, kind: str) -> Iterator[Span | None]:
    """Yield the spans of a request; None for one that is malformed.

    Args:
        body: An ExportTraceServiceRequest.
        kind: Its media type.

    Raises:
        Problem: 400 if it is no such request, 415 if it cannot be read here.
    """
    message = _from_protobuf(body) if kind == PROTOBUF else _from_json(body)
    for resource_spans in _objects(message, "resourceSpans"):
        for scope_spans in _objects(resource_spans, "scopeSpans"):
            for span in _objects(scope_spans, "spans"):
                yield _span(span, resource_spans.get("resource"))


def answer(kind: str, rejected: int, message: str) -> bytes:
    """Return the answer to a request, of which some spans may have been rejected."""
    partial = {"rejectedSpans": str(rejected), "errorMessage": message}
    if kind == PROTOBUF:
        from google.protobuf.json_format import ParseDict
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

        found = ExportTraceServiceResponse()
        if message:
            ParseDict({"partialSuccess": partial}, found)
        serialized: bytes = found.SerializeToString()
        return serialized
    if not message:
        return b"{}"
    return json.dumps({"partialSuccess": partial}).encode()


def _from_json(body: bytes) -> Mapping[str, Any]:
    try:
        found = parse_json(body)
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"not OTLP in JSON: {error}", code="invalid_json") from None
    if not isinstance(found, dict):
        raise Problem(400, "not OTLP in JSON: no object", code="invalid_json")
    return found


def _from_protobuf(body: bytes) -> Mapping[str, Any]:
    try:
        requires("otel", "opentelemetry.proto")
    except MissingExtraError as error:
        raise Problem(415, f"{error}; or send JSON", code="no_protobuf") from None
    from google.protobuf.json_format import MessageToDict
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    message = ExportTraceServiceRequest()
    try:
        message.ParseFromString(body)
    except (DecodeError, RecursionError) as error:
        raise Problem(400, f"not OTLP in protobuf: {error}", code="invalid_protobuf") from None
    found: dict[str, Any] = MessageToDict(message)
    for resource_spans in found.get("resourceSpans", ()):
        for scope_spans in resource_spans.get("scopeSpans", ()):
            for span in scope_spans.get("spans", ()):
                for name in (
                    "traceId",
                    "spanId",
                ):  # bytes, which are base64 here and hexadecimal in OTLP's JSON
                    span[name] = base64.b64decode(span.get(name, "")).hex()
    return found


def _objects(value: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = value.get(name)
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []


def _span(span: Mapping[str, Any], resource: Any) -> Span | None:
    trace_id, span_id = (str(span.get(name) or "").lower() for name in ("traceId", "spanId"))
    if not (_is_hex(trace_id, 32) and _is_hex(span_id, 16)):
        return None
    try:
        time = int(span.get("endTimeUnixNano") or span.get("startTimeUnixNano") or 0) / 1e9
        events = [(str(each.get("name")), _attributes(each)) for each in _objects(span, "events")]
        about = _attributes(resource) if isinstance(resource, Mapping) else {}
        return Span(trace_id, span_id, time, {**about, **_attributes(span)}, events)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None


def _is_hex(text: str, length: int) -> bool:
    return len(text) == length and not set(text) - set("0123456789abcdef") and bool(text.strip("0"))


def _attributes(holder: Mapping[str, Any]) -> dict[str, Any]:
    return {str(each.get("key")): _value(each.get("value")) for each in _objects(holder, "attributes")}


def _value(value: Any) -> Any:
    """An attribute's value (AnyValue) as JSON types."""
    if not isinstance(value, Mapping) or not value:
        return None
    ((kind, held),) = list(value.items())[:1]
    if kind == "intValue":
        return int(held)
    if kind == "arrayValue" and isinstance(held, Mapping):
        return [_value(each) for each in _objects(held, "values")]
    if kind == "kvlistValue" and isinstance(held, Mapping):
        return {str(each.get("key")): _value(each.get("value")) for each in _objects(held, "values")}
    return held
