"""Clients of a server."""

from gram.server.client.client import AsyncClient, Client, GramError

__all__ = ["AsyncClient", "Client", "GramError"]
