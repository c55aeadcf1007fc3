"""The Open Inference Protocol: by NVIDIA's own client, and by bodies as those of KServe and MLServer send them."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.servers import PATIENCE, RunningServer
from gram import __version__
from gram.models.tasks import TASKS
from gram.server.api.inference.model import MAX_PUZZLES, OUTPUTS
from tests.server.api.support import connect

triton = pytest.importorskip("tritonclient.http")

PAGE = Path(__file__).parents[3] / "docs" / "inference-protocol.md"
MODEL = "nqueens-8"
PUZZLES = ["g7 a4", "h1", "d8 g7"]
OPTIONS: dict[str, Any] = {"num_trajectories": 4, "seed": 5}
INFER = f"/v2/models/{MODEL}/infer"


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[Any]:
    with triton.InferenceServerClient(server.url.removeprefix("http://"), network_timeout=PATIENCE) as client:
        yield client


@pytest.fixture(scope="module")
def answers(server: RunningServer) -> list[dict[str, Any]]:
    return [solved(server, puzzle, OPTIONS) for puzzle in PUZZLES]


def solved(server: RunningServer, puzzle: Any, options: dict[str, Any], model: str = MODEL) -> dict[str, Any]:
    """The answer of POST /v1/solve."""
    answer: dict[str, Any] = server.post("/v1/solve", json={"model": model, "puzzle": puzzle, **options}).json()
    return answer


def tensor(values: Any, datatype: str = "BYTES", name: str = "puzzle", *, binary: bool = True) -> Any:
    array = np.array(values, dtype=object if datatype == "BYTES" else triton.triton_to_np_dtype(datatype))
    made = triton.InferInput(name, [*array.shape], datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def texts(array: NDArray[Any]) -> list[Any]:
    """What a BYTES tensor says: the client gives bytes if it came as bytes, else str."""
    return [text.decode() if isinstance(text, bytes) else text for text in array]


def as_told(result: Any, puzzle: int) -> list[dict[str, Any]]:
    """A puzzle's candidates as POST /v1/solve tells them, without what the tensors leave out."""
    columns = {name: result.as_numpy(name)[puzzle] for name in OUTPUTS}
    given = columns["votes"] > 0
    assert not given[given.sum() :].any(), "padding comes last"
    assert set(texts(columns["text"][~given])) <= {""}
    assert (columns["candidates"][~given] == -1).all()
    return [
        {
            "text": text,
            "grid": columns["candidates"][n].tolist(),
            "score": float(columns["scores"][n]),
            "valid": bool(columns["valid"][n]),
            "steps": int(columns["steps"][n]),
            "votes": int(columns["votes"][n]),
        }
        for n, text in enumerate(texts(columns["text"][given]))
    ]


def told(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in candidate.items() if key != "trajectory"} | {"grid": np.ravel(candidate["grid"]).tolist()}
        for candidate in answer["candidates"]
    ]


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("outputs", [None, *[dict.fromkeys(OUTPUTS, binary) for binary in (True, False)]])
@pytest.mark.parametrize("binary", [True, False])
def test_a_batch_gets_the_answers_that_each_puzzle_gets_alone(
    client: Any, answers: list[dict[str, Any]], binary: bool, outputs: dict[str, bool] | None, compression: str | None
) -> None:
    wanted = outputs and [triton.InferRequestedOutput(name, binary_data=form) for name, form in outputs.items()]
    puzzle = tensor(PUZZLES, binary=binary)
    result = client.infer(
        MODEL, [puzzle], outputs=wanted, request_id="me", parameters=OPTIONS, request_compression_algorithm=compression
    )
    assert [as_told(result, number) for number in range(len(PUZZLES))] == [told(answer) for answer in answers]
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("me", MODEL, "1")
    assert response["parameters"] == {"seed": 5, "complete": True}


def test_the_batch_has_padding(answers: list[dict[str, Any]]) -> None:
    assert len({len(answer["candidates"]) for answer in answers}) > 1, "choose other puzzles for the test above"


@pytest.mark.parametrize(
    "options",
    [
        {"stop": "first_valid", "temperature": 2},
        {"max_steps": 3, "temperature": [0, 2], "top": 2, "select": "majority"},
        {"guidance": {"prune": {"keep": 0.5, "steps": [1]}}, "symmetries": False},
        {"noise": {"sigma": 0.3}, "halt": "never", "max_steps": 2, "timeout_seconds": 300},
    ],
)
def test_the_options_are_those_of_a_solve(client: Any, server: RunningServer, options: dict[str, Any]) -> None:
    options = {"num_trajectories": 8, "seed": 2**62} | options
    result = client.infer(MODEL, [tensor([PUZZLES[:1]])], parameters=options)
    assert as_told(result, 0) == told(solved(server, PUZZLES[0], options))


@pytest.mark.parametrize("task", [task for task in TASKS.values() if task.name != "maze-30x30"], ids=lambda task: task.name)
def test_a_puzzle_may_be_written_in_any_spelling(client: Any, server: RunningServer, task: Any) -> None:
    spellings = [example if isinstance(example, str) else json.dumps(example) for example in task.examples]
    options = {"num_trajectories": 1, "max_steps": 1, "seed": 1}
    result = client.infer(task.name, [tensor(spellings)], parameters=options)
    for number, example in enumerate(task.examples):
        (candidate,) = as_told(result, number)
        candidate["grid"] = [symbol for symbol in candidate["grid"] if symbol != -1]  # a graph may have fewer vertices
        assert [candidate] == told(solved(server, example, options, task.name)), example


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("datatype", ["INT8", "UINT8", "INT32", "INT64", "UINT64"])
def test_numbers_are_read_too_flat_and_in_rows(client: Any, answers: list[dict[str, Any]], datatype: str, binary: bool) -> None:
    grids = np.array([answer["puzzle"]["grid"] for answer in answers])
    for puzzles in (grids, grids.reshape(len(PUZZLES), -1)):
        result = client.infer(MODEL, [tensor(puzzles, datatype, binary=binary)], parameters=OPTIONS)
        assert [as_told(result, number) for number in range(len(PUZZLES))] == [told(answer) for answer in answers]


def test_only_what_is_asked_for_comes_in_the_order_and_the_form_that_was_asked_for(client: Any) -> None:
    asked = [triton.InferRequestedOutput("votes"), triton.InferRequestedOutput("text", binary_data=False)]
    result = client.infer(MODEL, [tensor(PUZZLES)], outputs=asked, parameters=OPTIONS)
    votes, text = result.get_response()["outputs"]
    assert (votes["name"], "data" in votes, text["name"], "data" in text) == ("votes", False, "text", True)
    assert isinstance(result.as_numpy("text")[0, 0], str)
    assert result.as_numpy("scores") is None


def test_without_a_seed_one_is_chosen_and_repeats_the_batch(client: Any) -> None:
    first = client.infer(MODEL, [tensor(PUZZLES)], parameters={"num_trajectories": 4})
    again = client.infer(MODEL, [tensor(PUZZLES)], parameters=OPTIONS | {"seed": first.get_response()["parameters"]["seed"]})
    assert [as_told(first, number) for number in range(3)] == [as_told(again, number) for number in range(3)]


def test_metadata_and_probes_are_as_the_client_wants_them(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "1")
    assert not client.is_model_ready("chess")
    assert not client.is_model_ready(MODEL, "2")
    assert client.get_server_metadata() == {"name": "gram", "version": __version__, "extensions": ["binary_tensor_data"]}
    metadata = client.get_model_metadata(MODEL)
    assert metadata == client.get_model_metadata(MODEL, "1")
    assert (metadata["name"], metadata["versions"]) == (MODEL, ["1"])
    assert metadata["inputs"] == [{"name": "puzzle", "datatype": "BYTES", "shape": [-1]}]
    result = client.infer(MODEL, [tensor(PUZZLES)], model_version="1", parameters=OPTIONS)
    for given, described in zip(result.get_response()["outputs"], metadata["outputs"], strict=True):
        assert (given["name"], given["datatype"]) == (described["name"], described["datatype"])
        assert len(given["shape"]) == len(described["shape"])


def test_the_page_describes_the_tensors_as_they_are() -> None:
    page = PAGE.read_text()
    assert f"up to {MAX_PUZZLES:,} puzzles" in page
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| \[(puzzles, candidates[\w, ]*)\] \| (\S+) \|", page, re.MULTILINE)
    assert rows == [
        (name, output.datatype, ", ".join(("puzzles", "candidates", "numbers")[: output.rank]), shown(output.padding))
        for name, output in OUTPUTS.items()
    ]


def shown(padding: object) -> str:
    return str(padding).lower() or "empty"


ONE = [tensor(["h1"])]
WRONG: list[tuple[int, str, list[Any], dict[str, Any]]] = [
    (422, "puzzle[1]: the queen on row 8, column 1", [tensor(["h1", "a1 a2"])], {}),
    (422, "puzzle[0]: ", [tensor([[2] * 64], "INT32")], {}),
    (422, f"puzzle: a request may have {MAX_PUZZLES} puzzles", [tensor([""] * (MAX_PUZZLES + 1))], {}),
    (422, "parameters.temperature: Input should be less than or equal to 10", ONE, {"parameters": {"temperature": 11}}),
    (422, "parameters.temperature: ", ONE, {"parameters": {"temperature": float("nan")}}),
    (422, "parameters.seed: write a number, without quotes", ONE, {"parameters": {"seed": "1"}}),
    (422, "parameters.max_steps: this server allows 1024 at most", ONE, {"parameters": {"max_steps": 1025}}),
    (422, "parameters.num_trajectories: ", [tensor(["h1"] * 2)], {"parameters": {"num_trajectories": 50_001}}),
    (422, "parameters.stream: not an option", ONE, {"parameters": {"stream": True}}),
    (422, "parameters.priority: not an option", ONE, {"priority": 1}),
    (422, "parameters.timeout: give this or timeout_seconds", ONE, {"timeout": 10, "parameters": {"timeout_seconds": 1}}),
    (422, "parameters.timeout_seconds: this server allows 600 at most", ONE, {"timeout": 601_000_000}),
    (400, "puzzle: send texts (BYTES), or whole numbers", [tensor([[0.5] * 64], "FP32")], {}),
    (400, "puzzle: send texts (BYTES), or whole numbers", [tensor([0] * 64, "INT32")], {}),
    (400, "puzzle: texts have the shape [puzzles] or [puzzles, 1], not [1, 2]", [tensor([["g7", "a4"]])], {}),
    (400, "inputs: a model takes one tensor, 'puzzle', and was given 'board'", [tensor(["h1"], name="board")], {}),
    (400, "inputs: a model takes one tensor, 'puzzle', and was given 'puzzle', 'puzzle'", ONE * 2, {}),
    (400, "outputs.0.name: 'board' is none of candidates, text", ONE, {"outputs": [triton.InferRequestedOutput("board")]}),
    (400, "outputs.0.parameters.classification: ", ONE, {"outputs": [triton.InferRequestedOutput("text", class_count=2)]}),
    (413, "body: has ", [tensor(["x" * 70_000])], {}),
    (413, "the body has more than 65536 bytes", [tensor(["x" * 70_000])], {"request_compression_algorithm": "gzip"}),
    (404, f"version: {MODEL} has no version '2'; it has 1", ONE, {"model_version": "2"}),
    (404, "model: 'chess' is not loaded; loaded models: ", ONE, {"model_name": "chess"}),
]


@pytest.mark.parametrize(("status", "message", "inputs", "options"), WRONG)
def test_an_error_comes_in_the_clients_own_form(
    client: Any, status: int, message: str, inputs: list[Any], options: dict[str, Any]
) -> None:
    with pytest.raises(triton.InferenceServerException) as refused:
        client.infer(**{"model_name": MODEL, "inputs": inputs} | options)
    assert refused.value.status() == str(status)
    assert refused.value.message().startswith(message)


def test_what_the_server_does_not_have_is_an_error_in_that_form_too(client: Any, server: RunningServer) -> None:
    for ask in (client.get_model_repository_index, client.get_system_shared_memory_status):
        with pytest.raises(triton.InferenceServerException, match=r"\[404\] Not Found"):
            ask()
    with pytest.raises(triton.InferenceServerException, match=r"\[404\] model: 'chess' is not loaded"):
        client.get_model_metadata("chess")
    refused = server.get(INFER)
    assert (refused.status_code, refused.json()) == (405, {"error": "Method Not Allowed"})


def test_shared_memory_is_refused(client: Any) -> None:
    puzzle = triton.InferInput("puzzle", [1], "BYTES")
    puzzle.set_shared_memory("region", 6)
    with pytest.raises(triton.InferenceServerException, match="this server shares no memory; send the values"):
        client.infer(MODEL, [puzzle])


def test_headers_that_the_client_left_from_an_earlier_call_are_named(client: Any) -> None:
    """It writes them into the dictionary that it is given, and never takes them out."""
    as_json = tensor(["h1"], binary=False)
    headers: dict[str, Any] = {}
    client.infer(MODEL, ONE, headers=headers, parameters=OPTIONS, request_compression_algorithm="gzip")
    left = {"Content-Encoding", "Inference-Header-Content-Length"}
    assert headers.keys() == left, "tritonclient leaves no headers any more: the page says otherwise"
    with pytest.raises(
        triton.InferenceServerException, match="content-encoding names: it is not compressed; leave the header out"
    ):
        client.infer(MODEL, [as_json], headers=headers, parameters=OPTIONS)
    del headers["Content-Encoding"]
    with pytest.raises(triton.InferenceServerException, match=r"Inference-Header-Content-Length: .*leave it out"):
        client.infer(MODEL, [as_json], headers=headers, parameters=OPTIONS)
    with pytest.raises(triton.InferenceServerException, match=r"Inference-Header-Content-Length: .*leave the header out"):
        client.infer(MODEL, [as_json], headers={"Inference-Header-Content-Length": "50"}, parameters=OPTIONS)


BODY = {"inputs": [{"name": "puzzle", "shape": [3], "datatype": "BYTES", "data": PUZZLES}], "parameters": OPTIONS}
BEHIND = b"".join(len(puzzle).to_bytes(4, "little") + puzzle.encode() for puzzle in PUZZLES)
OCTETS = {"content-type": "application/octet-stream"}
# As kserve 0.21 and MLServer 1.7 write them: the one repeats the model's name, the other writes nulls and names its codecs.
FORMS: dict[str, tuple[dict[str, Any], bytes, dict[str, str]]] = {
    "kserve": (BODY | {"id": "8f", "model_name": MODEL}, b"", {"content-type": "application/json"}),
    "kserve-binary": (
        BODY
        | {
            "id": "8f",
            "model_name": MODEL,
            "inputs": [{"name": "puzzle", "shape": [3], "datatype": "BYTES", "parameters": {"binary_data_size": len(BEHIND)}}],
            "outputs": [{"name": name, "parameters": {"binary_data": False}} for name in OUTPUTS],
        },
        BEHIND,
        OCTETS,
    ),
    "mlserver": (
        BODY
        | {
            "id": None,
            "outputs": None,
            "inputs": [
                {
                    "name": "puzzle",
                    "shape": [3, 1],
                    "datatype": "BYTES",
                    "parameters": {"content_type": "str", "headers": None},
                    "data": [[puzzle] for puzzle in PUZZLES],
                }
            ],
        },
        b"",
        {"content-type": "application/json"},
    ),
    "bare": (BODY, b"", {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_bodies_of_other_clients_are_read(server: RunningServer, answers: list[dict[str, Any]], form: str) -> None:
    body, behind, headers = FORMS[form]
    head = json.dumps(body).encode()
    length = {"inference-header-content-length": str(len(head))} if behind else {}
    response = server.post(INFER, content=head + behind, headers=headers | length)
    assert response.headers["content-type"] == "application/json"
    columns = {output["name"]: output for output in response.json()["outputs"]}
    assert columns["text"]["data"][0] == answers[0]["candidates"][0]["text"]
    assert columns["valid"]["shape"] == [3, max(len(answer["candidates"]) for answer in answers)]
    assert response.json().get("id") == body.get("id")


def test_probes_answer_in_words_that_kserve_reads(server: RunningServer) -> None:
    """Its client raises at an empty body, and takes any other word for no."""
    assert server.get("/v2/health/live").json() == {"live": True}
    assert server.get("/v2/health/ready").json() == {"ready": True}
    assert server.get(f"/v2/models/{MODEL}/ready").json() == {"name": MODEL, "ready": True}


def test_a_client_that_leaves_frees_what_its_batch_holds(server: RunningServer) -> None:
    body = json.dumps(BODY | {"parameters": {"num_trajectories": 30_000}}).encode()
    before = server.gauge("gram_requests_cancelled_total")
    with connect(server) as connection:
        head = f"POST {INFER} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        server.wait_until("gram_active_requests", len(PUZZLES))
    server.wait_until("gram_active_requests", 0)
    assert server.gauge("gram_requests_cancelled_total") == before + len(PUZZLES)
    server.wait_until("gram_live_slots", 0)


def test_a_batch_is_cancelled_whole_by_its_id(server: RunningServer) -> None:
    body = BODY | {"parameters": {"num_trajectories": 30_000}}
    with ThreadPoolExecutor(1) as others:
        answer = others.submit(server.post, INFER, json=body, headers={"x-request-id": "mine"})
        server.wait_until("gram_active_requests", len(PUZZLES))
        assert httpx.delete(f"{server.url}/v1/requests/mine", timeout=PATIENCE).status_code == 204
    assert answer.result().status_code == 409
    assert answer.result().json()["error"].startswith("the request was cancelled")
    server.wait_until("gram_active_requests", 0)


def test_a_deadline_before_any_answer_is_an_error_of_the_batch(client: Any, server: RunningServer) -> None:
    with server.engine_stopped(), pytest.raises(triton.InferenceServerException, match=r"\[504\] the deadline came before"):
        client.infer(MODEL, [tensor(PUZZLES)], timeout=1000, parameters=OPTIONS)
    server.wait_until("gram_active_requests", 0)


def test_a_model_name_is_quoted(server: RunningServer) -> None:
    assert server.get("/v2/models/nqueens%2D8").json()["name"] == MODEL
    assert server.get("/v2/models/no%2Fsuch%0Aone/ready").status_code == 404
