"""Tensors on the wire: what is written is read, and what is no tensor is refused in one sentence."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gram.server.api.inference import message
from gram.server.api.inference.schemas import InferenceResponse, ResponseParameters
from gram.server.api.inference.tensors import BYTES, MAX_RANK, NUMBERS, Tensor, from_bytes, from_json
from gram.server.api.problems import ProblemError

SHAPES = arrays.array_shapes(min_dims=1, max_dims=MAX_RANK, max_side=4)
TEXTS = arrays.arrays(object, SHAPES, elements=st.text(max_size=20))
FINITE = {"allow_nan": False, "allow_infinity": False}


def numbers(dtype: np.dtype[Any]) -> st.SearchStrategy[Any]:
    options: dict[str, Any] = FINITE if dtype.kind == "f" else {}
    return arrays.arrays(dtype, SHAPES, elements=arrays.from_dtype(dtype, **options))


TENSORS = st.builds(Tensor, st.just("puzzle"), st.one_of(TEXTS, *map(numbers, NUMBERS.values())))


def same(one: Tensor, other: Tensor) -> bool:
    return (one.name, one.datatype) == (other.name, other.datatype) and np.array_equal(one.array, other.array)


def nested(tensor: Tensor) -> Any:
    return tensor.array.tolist()


@given(TENSORS)
def test_what_is_written_is_read_as_bytes_and_as_json_flat_and_nested(tensor: Tensor) -> None:
    shape = tensor.array.shape
    assert same(from_bytes(tensor.name, tensor.datatype, shape, tensor.data(), ""), tensor)
    for values in (tensor.values(), nested(tensor)):
        assert same(from_json(tensor.name, tensor.datatype, shape, json.loads(json.dumps(values)), ""), tensor)


@given(st.lists(st.tuples(TENSORS, st.booleans()), max_size=4), st.text(max_size=5))
def test_an_answer_can_be_read_as_a_request(outputs: list[tuple[Tensor, bool]], name: str) -> None:
    """Tensors have one form in both, so what reads requests reads the outputs of answers."""
    parameters = ResponseParameters(seed=1, complete=True)
    body, length = message.write(InferenceResponse(model_name="m", id=name, parameters=parameters, outputs=[]), outputs)
    assert (length is None) == (not any(binary for _, binary in outputs))
    told = json.loads(body[:length])
    head = json.dumps({"id": told["id"], "inputs": told["outputs"]}).encode()
    request, inputs = message.read(head + body[length or len(body) :], str(len(head)))
    assert request.id == name
    assert all(map(same, inputs, (tensor for tensor, _ in outputs)))


@given(st.binary(max_size=60), st.sampled_from([*NUMBERS, BYTES]), st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_bytes_are_a_tensor_or_refused_in_a_sentence(data: bytes, datatype: str, shape: list[int]) -> None:
    try:
        tensor = from_bytes("puzzle", datatype, shape, data, "inputs.0")
    except ProblemError as error:
        refusal = error.problem
    else:
        assert tensor.data() == data
        assert tensor.array.shape == tuple(shape)
        return
    assert refusal.status == 400
    assert refusal.detail.startswith("inputs.0")
    assert "\n" not in refusal.detail


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=8,
)
FIELDS = {
    "name": st.just("puzzle") | JSON,
    "datatype": st.sampled_from([*NUMBERS, BYTES]) | JSON,
    "shape": st.lists(st.integers(-1, 2**70), max_size=4) | JSON,
    "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 50)}) | JSON,
    "data": st.lists(JSON, max_size=4),
}
REQUESTS = st.fixed_dictionaries({"inputs": st.lists(st.fixed_dictionaries({}, optional=FIELDS), max_size=2)})


@given(
    st.binary(max_size=60) | st.builds(lambda request: json.dumps(request).encode(), REQUESTS | JSON),
    st.binary(max_size=60),
    st.none() | st.integers(0, 200).map(str) | st.text(max_size=5),
)
def test_a_body_is_a_request_or_refused_in_a_sentence(head: bytes, behind: bytes, length: str | None) -> None:
    for given_length in (length, str(len(head))):
        try:
            message.read(head + behind, given_length)
        except ProblemError as error:
            refusal = error.problem
        else:
            continue
        assert refusal.status in (400, 422)
        assert refusal.detail.strip()
        assert "\n" not in refusal.detail


def request(body: dict[str, Any], behind: bytes = b"") -> bytes:
    return json.dumps({"inputs": [{"name": "puzzle", "datatype": BYTES, "shape": [1]} | body]}).encode() + behind


@pytest.mark.parametrize(
    ("body", "length", "told"),
    [
        (b"\x1f\x8b...", None, "send the header 'content-encoding: gzip'"),
        (b"x\x9c...", None, "send the header 'content-encoding: deflate'"),
        (b"", None, "not JSON"),
        (b"[" * 60_000, None, "not JSON"),
        (b"{}{}", None, "give its length in the header Inference-Header-Content-Length"),
        (b"{}", "3", "Inference-Header-Content-Length: it is '3', but the body has 2 bytes; leave it out"),
        (b"{}", "9" * 5000, "leave it out"),
        (b"{}", "-1", "leave it out"),
        (b'{"inputs": []}', "5", "the whole body of 14 bytes is JSON; leave the header out"),
        (b'{"inputs": []}..', "14", "2 bytes behind the JSON belong to no input"),
        (b"{}", None, "inputs: Field required"),
        (request({}), None, "send its values either in data or as bytes"),
        (request({"data": ["a1"], "parameters": {"binary_data_size": 6}}), None, "send its values either"),
        (request({"parameters": {"binary_data_size": 6}}), None, "give its length in the header"),
        (request({"parameters": {"shared_memory_region": "x"}}), None, "this server shares no memory"),
        (request({"data": []}), None, "there are 0 values, but the shape [1] has 1"),
        (request({"data": ["a1"], "shape": []}), None, "inputs.0.shape: give 1 to 3 dimensions, each of them 1 or more"),
        (request({"data": [], "shape": [0]}), None, "inputs.0.shape: give 1 to 3 dimensions"),
        (request({"data": ["a1"], "shape": [2**62, 2**62]}), None, "there are 1 values"),
        (request({"data": [["a1"], ["h1"]], "shape": [1, 2]}), None, "not nested as the shape says"),
        (request({"data": [1]}), None, "value 0 is no BYTES"),
        (request({"data": [True], "datatype": "INT8"}), None, "value 0 is no INT8"),
        (request({"data": [128], "datatype": "INT8"}), None, "INT8 holds numbers from -128 to 127"),
        (request({"data": [10**400], "datatype": "FP64"}), None, "a number is too large for FP64"),
        (request({"data": ["a1"], "datatype": "TEXT"}), None, "'TEXT' is none of BOOL, UINT8"),
        (request({"data": ["a1"], "colour": 1}), None, "inputs.0.colour: not an option"),
    ],
)
def test_the_sentence_says_what_is_wrong(body: bytes, length: str | None, told: str) -> None:
    with pytest.raises(ProblemError) as refused:
        message.read(body, length)
    assert refused.value.problem.status == 400
    assert told in refused.value.problem.detail


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (struct.pack("<I", 2) + b"a", "element 0 ends after the 5 bytes of the tensor"),
        (b"\0\0", "element 0 ends after the 2 bytes of the tensor"),
        (struct.pack("<I", 2**32 - 1), "element 0 ends after the 4 bytes"),
        (struct.pack("<I", 1) + b"\xff", "element 0 is not UTF-8"),
        (b"", "the 0 bytes hold 0 elements, but the shape has 1"),
        (b"\0" * 8, "the 8 bytes hold 1 elements and 4 bytes more, but the shape has 1"),
    ],
)
def test_texts_that_do_not_fill_their_bytes_are_refused(data: bytes, told: str) -> None:
    body = request({"parameters": {"binary_data_size": len(data)}})
    with pytest.raises(ProblemError) as refused:
        message.read(body + data, str(len(body)))
    assert told in refused.value.problem.detail


def test_as_many_elements_as_a_body_holds_are_read_in_no_time_that_grows_faster() -> None:
    """The largest body of the smallest elements, and one whose shape promises far more than it has."""
    size = 65_536
    assert from_bytes("puzzle", BYTES, [size // 4], b"\0" * size, "").array.size == size // 4
    with pytest.raises(ProblemError, match="hold 16384 elements"):
        from_bytes("puzzle", BYTES, [2**62, 2**62], b"\0" * size, "")
