"""Clients of a server: `Client` blocks, `AsyncClient` awaits. Users import both from `gram`."""
