"""A local Ray cluster of several nodes, with the application on it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import ray
from ray import serve
from ray.cluster_utils import Cluster

from benchmarks.servers import RunningServer, free_port, wait_for
from gram.server.ray.application import Arguments, build

SETTINGS = {"slots": 8, "threads": 1}
"""As FIXED_SIZE."""
OBJECTS = 80 * 1024 * 1024
"""Bytes of each node's object store, of which nothing is used: the least that Ray takes."""


@dataclass
class RayServer(RunningServer):
    """The application on a local cluster, at its HTTP proxy."""

    cluster: Cluster

    def ready(self) -> bool:
        try:
            return self.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def replicas(self, deployment: str = "engine") -> list[psutil.Process]:
        """The processes of a deployment's replicas, on all nodes."""
        title = f"ray::ServeReplica:gram:{deployment}"
        found = []
        for raylet in self._raylets():
            for child in raylet.children(recursive=True):
                try:
                    if child.cmdline()[:1] and child.cmdline()[0].startswith(title):
                        found.append(child)
                except psutil.Error:
                    continue  # it has just ended
        return found

    def engines(self) -> list[psutil.Process]:
        return [child for replica in self.replicas() for child in replica.children() if "python" in child.name()]

    def _raylets(self) -> list[psutil.Process]:
        nodes = self.cluster.list_all_nodes()
        return [psutil.Process(node.all_processes["raylet"][0].process.pid) for node in nodes]

    def serving(self) -> int:
        """The engines that can answer."""
        lines = self.get("/metrics").text.splitlines()
        return sum(line.startswith("gram_ready{") and line.endswith(" 1.0") for line in lines) - len(self.replicas("api"))


@contextmanager
def ray_cluster(nodes: int = 2) -> Iterator[Cluster]:
    """A cluster of a head, for the API, and nodes for an engine each."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 4, "object_store_memory": OBJECTS, "include_dashboard": False, "resources": {"head": 1}},
    )
    try:
        for _ in range(nodes):
            add_node(cluster)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.WARNING)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def add_node(cluster: Cluster) -> None:
    """Add a node for one or two engines."""
    cluster.add_node(num_cpus=1, object_store_memory=OBJECTS, resources={"engine": 1})


@contextmanager
def serving_on_ray(
    cluster: Cluster, checkpoint: Path, replicas: int = 2, apis: int = 1, **settings: object
) -> Iterator[RayServer]:
    """The application, with this many engines and replicas of the API."""
    port = free_port()
    serve.start(http_options={"port": port}, proxy_location="HeadOnly")
    app = build(
        Arguments(
            settings=SETTINGS | settings,
            engines={"engine": [checkpoint]},
            options={
                "engine": {"num_replicas": replicas, "ray_actor_options": {"num_cpus": 0, "resources": {"engine": 0.5}}},
                "api": {"num_replicas": apis, "ray_actor_options": {"num_cpus": 0, "resources": {"head": 0.1}}},
            },
        )
    )
    serve.run(app, name="gram")
    server = RayServer(f"http://127.0.0.1:{port}", None, cluster)  # type: ignore[arg-type]  # it is no process of ours
    try:
        wait_for(lambda: server.serving() == replicas, "all engines are ready")
        yield server
    finally:
        serve.shutdown()
