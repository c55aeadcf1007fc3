"""Models by hf:OWNER/NAME@REVISION: the real client library, asking a stand-in of the hub on this machine."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from huggingface_hub import constants

from benchmarks.servers import PATIENCE
from gram.models.config import ZOO, read_config
from tests.models.importing.support import random_tensors, small_arch, write_public
from tests.server.cli.support import gram

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Answers as the hub does: lists the files of a repository at the commit, and gives them. It has one commit of each."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.fetched: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        match urlsplit(self.path).path.strip("/").split("/"):
            case ["api", "models", owner, name, "tree", revision]:
                self._list(self.server.folder / owner / name, revision)
            case [owner, name, "resolve", revision, *file]:
                self._give(self.server.folder / owner / name, revision, "/".join(file), with_body)
            case _:
                self._refuse("EntryNotFound")

    def _list(self, repository: Path, revision: str) -> None:
        if self._known(repository, revision):
            files = [path for path in sorted(repository.rglob("*")) if path.is_file()]
            listed = [
                {"type": "file", "oid": "0" * 40, "size": path.stat().st_size, "path": str(path.relative_to(repository))}
                for path in files
            ]
            self._send(json.dumps(listed).encode(), {"Content-Type": "application/json"}, with_body=True)

    def _give(self, repository: Path, revision: str, file: str, with_body: bool) -> None:
        if self._known(repository, revision):
            if with_body:
                self.server.fetched.append(file)
            content = (repository / file).read_bytes()
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
            self._send(content, headers, with_body)

    def _known(self, repository: Path, revision: str) -> bool:
        if not repository.exists():
            self._refuse("RepoNotFound")
        elif revision != COMMIT:
            self._refuse("RevisionNotFound")
        else:
            return True
        return False

    def _send(self, content: bytes, headers: dict[str, str], with_body: bool) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def _refuse(self, cause: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", cause)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub(tmp_path / "hub") as hub:
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        # What the library makes of HF_ENDPOINT and HF_HOME when it is imported.
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield hub
        hub.shutdown()
        thread.join()


def ours(hub: Hub) -> str:
    """A repository in this project's format, with other files; its address."""
    folder = hub.folder / "somebody" / "queens"
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "evaluation.json"):
        (folder / name).write_bytes((ZOO / "nqueens-8" / name).read_bytes())
    for name in ("README.md", "optimizer.bin", "modeling.py"):
        (folder / name).write_text("more")
    return f"hf:somebody/queens@{COMMIT}"


def theirs(hub: Hub) -> str:
    """A repository of TRM's public code; its address."""
    arch = small_arch()
    (hub.folder / "somebody").mkdir(parents=True)
    write_public(hub.folder / "somebody" / "trm", arch, random_tensors(arch), data={"vocab_size": 6, "seq_len": 16})
    (hub.folder / "somebody" / "trm" / "README.md").write_text("more")
    return f"hf:somebody/trm@{COMMIT}"


def test_a_repository_in_our_format_is_fetched_once_and_served(hub: Hub, tmp_path: Path) -> None:
    address = ours(hub)
    places = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}

    def solve() -> str:
        command = [sys.executable, "-m", "gram", "solve", "g7 a4", "--model", address, "--seed", "1", "--num-trajectories", "3"]
        done = subprocess.run(command, env={**os.environ, **places}, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        return done.stdout.split(" steps in ")[0] + done.stderr

    told = solve()
    assert "gram: fetching model.safetensors of hf:somebody/queens" in told
    assert sorted(hub.fetched) == ["config.json", "evaluation.json", "model.safetensors"]
    hub.shutdown()
    hub.server_close()
    assert solve() in told  # without the hub


def test_a_repository_of_the_public_code_is_imported_and_then_served(hub: Hub, tmp_path: Path) -> None:
    address = theirs(hub)
    done = gram("solve", "1.../.2../..3./...4", "--model", address, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == "trm"
    assert "gram: answers sudoku-4x4: 16 cells of 5 symbols" in done.stderr
    assert sorted(hub.fetched) == ["all_config.yaml", "dataset.json", "step_7"]
    (folder,) = (tmp_path / "cache").rglob("trm")
    origin = read_config(folder).origin
    assert origin is not None
    assert origin.source == f"{address}/step_7"
    assert origin.sha256 == hashlib.sha256((hub.folder / "somebody" / "trm" / "step_7").read_bytes()).hexdigest()


def test_a_repository_is_imported_to_a_folder_by_name(hub: Hub, tmp_path: Path) -> None:
    done = gram("import", theirs(hub), "--out", str(tmp_path / "mine"), "--l-cycles", "1")
    assert done.returncode == 0, done.stderr
    assert read_config(tmp_path / "mine").model.low_steps == 1
    refused = gram("import", ours(hub), "--out", str(tmp_path / "queens"))
    assert "needs no import; serve it with: gram serve --model hf:somebody/queens" in refused.stderr


def test_of_several_checkpoints_one_is_named_by_its_file(hub: Hub, tmp_path: Path) -> None:
    address = theirs(hub)
    folder = hub.folder / "somebody" / "trm"
    torch.save(random_tensors(small_arch(), seed=1), folder / "step_8")
    out = ("--out", str(tmp_path / "mine"))
    refused = gram("import", address, *out)
    assert f"there are 2 checkpoints; name one, as {address}/step_7: step_7, step_8" in refused.stderr
    assert "the repository has no step_9" in gram("import", f"{address}/step_9", *out).stderr
    assert gram("import", f"{address}/step_8", *out).returncode == 0


def refusal(address: str) -> str:
    done = gram("serve", "--model", address)
    assert done.returncode == 1
    assert done.stderr.startswith("gram: hf:")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("revision", ["main", "v1.0", COMMIT[:12]])
def test_a_revision_must_be_a_whole_commit(revision: str) -> None:
    assert f"{revision} may come to mean something else; give the commit" in refusal(f"hf:somebody/queens@{revision}")


@pytest.mark.parametrize("address", ["hf:somebody/queens", f"hf:queens@{COMMIT}", f"hf:../..@{COMMIT}"])
def test_a_wrong_address_is_told_what_one_looks_like(address: str) -> None:
    assert "an address on the hub is hf:OWNER/NAME@REVISION" in refusal(address)


def test_what_the_hub_does_not_have_is_said(hub: Hub) -> None:
    ours(hub)
    assert "there is no such repository, or it needs a login: hf auth login" in refusal(f"hf:nobody/queens@{COMMIT}")
    assert "somebody/queens has no such commit" in refusal(f"hf:somebody/queens@{COMMIT[::-1]}")
    (hub.folder / "somebody" / "queens" / "model.safetensors").unlink()
    assert "the repository has no checkpoint: no step_N" in refusal(f"hf:somebody/queens@{COMMIT}")


def test_without_a_network_the_error_says_so(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # the library would try for 23 seconds to reach a hub
    told = refusal(ours(hub))
    assert "can't be fetched: " in told
    assert "is there a network?" in told
    assert not (tmp_path / "cache").exists()


def test_without_the_client_library_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "needs huggingface_hub: pip install -e '.[hub]'" in refusal(f"hf:somebody/queens@{COMMIT}")
