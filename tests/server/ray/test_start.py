"""What `gram serve --ray` says if it can't start."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

needs_ray = pytest.mark.skipif(not find_spec("ray"), reason="needs Ray: pip install -e '.[ray]'")


def refused(*flags: str) -> str:
    command = [sys.executable, "-m", "gram", "serve", "--ray", *flags]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 1, result.stderr
    return result.stderr.splitlines()[-1]


@pytest.mark.skipif(bool(find_spec("ray")), reason="Ray is installed")
def test_without_ray_it_says_what_to_install() -> None:
    assert refused("auto") == "gram: --ray needs ray, which is not installed: pip install 'gram-server[ray]'"


@needs_ray
def test_without_a_cluster_it_says_so_at_once() -> None:
    assert refused("127.0.0.1:9").startswith("gram: no Ray cluster can be used at '127.0.0.1:9': ")


@needs_ray
def test_another_version_of_ray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from gram.server.ray.application import check_version

    monkeypatch.setattr(ray, "__version__", "2.59.1")
    with pytest.raises(RuntimeError, match=r"Ray 2\.59\.1 is installed, and this server needs 2\.60: pip install"):
        check_version()


@needs_ray
def test_where_the_jobs_are_is_no_setting_of_ray_where_all_can_read_it() -> None:
    from gram.server.ray.application import Arguments, build

    with pytest.raises(ValueError, match="set GRAM_JOBS on the machines"):
        build(Arguments(settings={"jobs": "postgresql://user:secret@host/database"}))
