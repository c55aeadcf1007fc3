"""A request or an answer as one body: JSON, and behind it the bytes of tensors, as a header says.

tritonclient leaves the headers of a call in its caller's dict, so the next call may bring one that does not fit its body. The
error then names the header.
"""

from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from gram.server.api.inference import tensors
from gram.server.api.inference.schemas import (
    InferenceRequest,
    InferenceResponse,
    InputParameters,
    ResponseOutput,
    ResponseTensorParameters,
)
from gram.server.api.inference.tensors import Tensor
from gram.server.api.problems import ProblemError, faults

LENGTH_HEADER = "Inference-Header-Content-Length"
"""The length of the JSON in bytes, where tensors follow it."""
_CODINGS = {b"\x1f\x8b": "gzip", b"\x78": "deflate"}
"""How compressed bodies begin; JSON does not begin so."""


def read(body: bytes, length: str | None) -> tuple[InferenceRequest, list[Tensor]]:
    """The request in a body, and its input tensors. length: the value of LENGTH_HEADER, if it was sent. Raises ProblemError."""
    values, rest = _split(body, length)
    try:
        request = InferenceRequest.model_validate(values)
    except ValidationError as error:
        found = faults(error.errors())
        of_options = all(fault.place.startswith("parameters") for fault in found)
        raise ProblemError.at(found, 422 if of_options else 400) from error
    inputs = []
    for number, sent in enumerate(request.inputs):
        place = f"inputs.{number}"
        parameters = sent.parameters or InputParameters()
        size = parameters.binary_data_size
        if parameters.shared_memory_region is not None:
            raise ProblemError(400, "this server shares no memory; send the values", f"{place}.parameters.shared_memory_region")
        if (size is None) == (sent.data is None):
            detail = "send its values either in data or as bytes, whose number is in parameters.binary_data_size"
            raise ProblemError(400, detail, place)
        if size is None:
            assert sent.data is not None
            inputs.append(tensors.from_json(sent.name, sent.datatype, sent.shape, sent.data, place))
            continue
        if size > len(rest):
            detail = f"there are {len(rest)} bytes behind the JSON, after those of earlier inputs" + _unless_sent(length)
            raise ProblemError(400, detail, f"{place}.parameters.binary_data_size")
        inputs.append(tensors.from_bytes(sent.name, sent.datatype, sent.shape, rest[:size], place))
        rest = rest[size:]
    if rest:
        raise ProblemError(400, f"{len(rest)} bytes behind the JSON belong to no input; give its parameters.binary_data_size")
    return request, inputs


def write(response: InferenceResponse, outputs: list[tuple[Tensor, bool]]) -> tuple[bytes, int | None]:
    """An answer with its output tensors, each with whether to send it as bytes -> the body, and the value of LENGTH_HEADER."""
    behind: list[bytes] = []
    for tensor, binary in outputs:
        described = ResponseOutput.model_construct(
            name=tensor.name, datatype=tensor.datatype, shape=[*tensor.array.shape], parameters=None, data=None
        )
        if binary:
            behind.append(tensor.data())
            described.parameters = ResponseTensorParameters(binary_data_size=len(behind[-1]))
        else:
            described.data = tensor.values()
        response.outputs.append(described)
    head = response.model_dump_json(exclude_none=True).encode()
    return b"".join([head, *behind]), len(head) if behind else None


def _split(body: bytes, length: str | None) -> tuple[Any, bytes]:
    """The JSON of a body, and the bytes behind it."""
    for start, coding in _CODINGS.items():
        if body.startswith(start):
            raise ProblemError(400, f"the body is compressed; send the header 'content-encoding: {coding}' with it")
    if length is None:
        try:
            return from_json(body), b""
        except ValueError as error:
            raise ProblemError(400, f"not JSON: {error}{_unless_sent(length)}", "body") from error
    if not (length.isascii() and length.isdigit() and len(length) < 20 and int(length) <= len(body)):
        detail = f"it is {length[:20]!r}, but the body has {len(body)} bytes; leave it out if no tensors follow the JSON"
        raise ProblemError(400, detail, LENGTH_HEADER)
    end = int(length)
    try:
        return from_json(body[:end]), body[end:]
    except ValueError as error:
        detail = f"the first {end} bytes of the body, which it gives, are not JSON: {error}"
        if _is_json(body):
            detail = f"it is {end}, but the whole body of {len(body)} bytes is JSON; leave the header out"
        raise ProblemError(400, detail, LENGTH_HEADER) from error


def _unless_sent(length: str | None) -> str:
    return "" if length else f"; if tensors follow the JSON as bytes, give its length in the header {LENGTH_HEADER}"


def _is_json(body: bytes) -> bool:
    try:
        from_json(body)
    except ValueError:
        return False
    return True
