"""The API reference: what `/openapi.json` says, with the streams and the errors, in Markdown."""

import asyncio
import json
import math
import re
from typing import Any, get_args

import httpx
from pydantic import BaseModel

from gram.server.api.admission import Admission
from gram.server.api.app import create_app
from gram.server.api.schemas import Problem
from gram.server.api.service import Service
from gram.server.causes import Cause
from gram.server.metrics import Metrics
from gram.server.sampling.answers import EVENTS
from gram.server.settings import ServerSettings
from gram.server.supervision.fleet import Fleet
from gram.server.supervision.supervisor import Listener

Schema = dict[str, Any]
"""A part of the OpenAPI document."""

_INTRODUCTION = """\
# The API

What a running server shows at `/docs` and `/openapi.json`, to be read without one. The file is made by
`python -m gram.server.api.reference > docs/api.md`; limits and defaults are those of a server without settings.

On a server with `--keys-file` every call under `/v1` takes the header `Authorization: Bearer KEY`, and may also answer 401 or
429. Every answer has an `X-Request-ID`: the caller's own, or one that the server made.
"""

_STREAMS = """\
## Streams

With `"stream": true` the answer comes in events, each as soon as it is known. By default they are server-sent events (SSE), two
lines and an empty one each: `event: NAME` and `data: JSON`. With `Accept: application/x-ndjson` each is a line of JSON:
`{"event": NAME, "data": ...}`. A stream ends with `result` or `error`; one that ends with neither was cut off.
"""

_ERRORS = """\
## Errors

Every error is a [Problem](#problem), as `application/problem+json` (RFC 9457). `detail` names the place and the mend;
`cause` is for programs, and what `gram_errors_total` counts by. In a stream that has begun it is the last event.
"""

_WHEN = {
    "start": "with `stream_steps`: the first event",
    "step": "with `stream_steps`: a trajectory has made a step and goes on",
    "pruned": "with `stream_steps`: a trajectory has given up its slot because of `guidance`",
    "trajectory": "a trajectory has ended: in the order in which they end, or with `stop` in the order of their index",
    "result": "the last event: what the call answers without a stream",
    "error": "the last event if there is no result",
}
"""When a stream sends each event. The OpenAPI document has no place for it."""
_STREAMED: dict[str, type[BaseModel]] = {**EVENTS, "error": Problem}

CAUSES: dict[Cause, tuple[str, str]] = {
    "invalid": ("400, 408, 409, 422", "the request is wrong or never came whole; `errors` names each place in it"),
    "not_found": ("404, 405", "no such path, method, model or task"),
    "too_large": ("413", "the body has more bytes than `--max-body-bytes`"),
    "unauthorized": ("401", "no key, or one that the server does not know"),
    "forbidden": ("403", "the key may not do this, or the server does not do it for anybody"),
    "rate_limited": ("429", "the key has made its requests for now; `Retry-After` says when to come again"),
    "overloaded": ("429", "too much is queued or open, or `timeout_seconds` can't be kept; `Retry-After` as above"),
    "deadline": ("504", "the time was over before a trajectory had ended"),
    "slow_client": ("408", "the client let more than `--max-unread` trajectories of its stream wait"),
    "no_engine": ("503", "no engine can answer: it starts, it can't be started, or the model is out of rotation"),
    "out_of_memory": ("503", "the device's memory did not hold a step of it; it may be sent again"),
    "stopping": ("503", "the server stops and the grace period is over; it may be sent again"),
    "internal": ("500", "an error of the server's own; its log has more, by the `request_id`"),
}
"""Each cause's statuses, and what has happened."""

_FOREIGN = {"HTTPValidationError", "ValidationError"}
"""FastAPI declares these for every parameter; this server answers with a Problem."""
_NAMES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "`null`"}
_LIMITS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "up to", "exclusiveMaximum": "below"}


def openapi() -> Schema:
    """The document of a server without settings and without models."""
    settings = ServerSettings.model_construct(model=[])  # whatever the environment says
    fleet = Fleet(settings, Listener(*[lambda *_: None] * 4))
    app = create_app(Service(settings, {}, Metrics({}), fleet, Admission(settings)))

    async def ask() -> Schema:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            document: Schema = (await client.get("/openapi.json")).json()
            return document

    return asyncio.run(ask())


def reference() -> str:
    """The whole page."""
    document = openapi()
    schemas: dict[str, Schema] = {k: v for k, v in document["components"]["schemas"].items() if k not in _FOREIGN}
    for model in _STREAMED.values():
        schema = model.model_json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
        for name, part in {**schema.pop("$defs", {}), model.__name__: schema}.items():
            schemas.setdefault(name, part)
    calls = [(method, path, call) for path, calls in document["paths"].items() for method, call in calls.items()]
    sections = [_INTRODUCTION, *(_call(method, path, call, schemas) for method, path, call in calls)]
    events = [[f"`{name}`", f"[{model.__name__}](#{model.__name__.lower()})", _WHEN[name]] for name, model in _STREAMED.items()]
    sections.append(_STREAMS + "\n" + _table(["event", "data", "when"], events))
    causes = [[f"`{cause}`", *CAUSES[cause]] for cause in get_args(Cause)]
    sections.append(_ERRORS + "\n" + _table(["cause", "status", "what has happened"], causes))
    bodies = [call["requestBody"]["content"]["application/json"]["schema"] for *_, call in calls if "requestBody" in call]
    asked = set().union(*(_reached(body, schemas) for body in bodies))
    sections.append("## Objects\n")
    sections += [_object(name, schemas[name], name in asked) for name in sorted(schemas) if "properties" in schemas[name]]
    return "\n".join(sections)


def _call(method: str, path: str, call: Schema, schemas: dict[str, Schema]) -> str:
    """A call: what it does, takes and answers, and a command that makes it."""
    lines = [f"## {method.upper()} {path}", "", f"{call['summary']}. {call.get('description', '')}".strip(), ""]
    if parameters := call.get("parameters"):
        rows = [
            [f"`{p['name']}`", p["in"], _kind(p["schema"]), _default(p["schema"], p.get("required", False)), _what(p)]
            for p in parameters
        ]
        lines += [_table(["parameter", "in", "type", "default", "what"], rows)]
    if body := call.get("requestBody"):
        lines += [f"- Body: {_kind(body['content']['application/json']['schema'])}"]
    errors = []
    for status, response in call["responses"].items():
        kinds = {
            media: _kind(content["schema"]) for media, content in response.get("content", {}).items() if "schema" in content
        }
        if status < "400":
            stream = " or a [stream](#streams)" if "text/event-stream" in response.get("content", {}) else ""
            lines += [f"- Answer: {status} {', '.join(kinds.values())}{stream}".rstrip()]
        elif not any(name in kind for name in _FOREIGN for kind in kinds.values()):
            errors.append(status)
    if errors:
        lines += [f"- [Errors](#errors): {', '.join(errors)}"]
    if command := _command(path, call, schemas):
        lines += ["", "```bash", command, "```"]
    return "\n".join([*lines, ""])


def _command(path: str, call: Schema, schemas: dict[str, Schema]) -> str | None:
    """A curl line for a call that needs no administrator's key, with the examples that the document has."""
    for parameter in call.get("parameters", []):
        for example in parameter["schema"].get("examples", [])[:1]:
            path = path.replace(f"{{{parameter['name']}}}", str(example))
    if "{" in path or "403" in call["responses"]:
        return None
    command = f"curl -s localhost:8000{path}"
    if "requestBody" not in call:
        return command
    schema = schemas[_name(call["requestBody"]["content"]["application/json"]["schema"]["$ref"])]
    body = min((json.dumps(example) for example in schema["examples"]), key=len)
    return f"{command} -H 'content-type: application/json' \\\n  -d '{body}'"


def _object(name: str, schema: Schema, asked: bool) -> str:
    """An object's fields; of one that is sent to the server, with their defaults."""
    required = schema.get("required", [])
    rows = [
        [f"`{field}`", _kind(part), *([_default(part, field in required)] if asked else []), _what(part)]
        for field, part in schema["properties"].items()
    ]
    columns = ["field", "type", *(["default"] if asked else []), "what"]
    return "\n".join([f"### {name}", "", schema.get("description", ""), "", _table(columns, rows)])


def _kind(schema: Schema) -> str:
    """A type in words, with its limits: "integer from 1"."""
    if "$ref" in schema:
        name = _name(schema["$ref"])
        return "any JSON" if name == "JsonValue" else f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if choice := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_kind(part) for part in choice)
    match schema.get("type"):
        case "array":
            fewest, most = schema.get("minItems"), schema.get("maxItems")
            return f"list of {f'{fewest} to {most} ' if most else ''}{_kind(schema['items'])}"
        case "object":
            return "object"
        case str(kind):
            limits = [f"{word} {_number(schema[key])}" for key, word in _LIMITS.items() if key in schema]
            return f"{_NAMES[kind]} {', '.join(limits)}".rstrip()
    return "any JSON"


def _number(value: float) -> str:
    """A limit. JSON's numbers are floats to many a reader, so a large one is a power of two."""
    exponent = math.log2(value) if value > 2**53 else 0.5
    return f"2^{exponent:.0f}" if exponent.is_integer() else f"{value:,g}" if value != int(value) else f"{int(value):,}"


def _default(schema: Schema, required: bool) -> str:
    return "required" if required else f"`{json.dumps(schema.get('default'))}`"


def _what(schema: Schema) -> str:
    return str(schema.get("description", ""))


def _name(ref: str) -> str:
    return ref.rsplit("/", 1)[-1]


def _reached(schema: object, schemas: dict[str, Schema]) -> set[str]:
    """The objects that a schema is made of."""
    names: set[str] = set()
    waiting = [*re.findall(r"#/components/schemas/(\w+)", json.dumps(schema))]
    while waiting:
        if (name := waiting.pop()) not in names:
            names.add(name)
            waiting += re.findall(r"#/components/schemas/(\w+)", json.dumps(schemas[name]))
    return names


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    print(reference(), end="")
