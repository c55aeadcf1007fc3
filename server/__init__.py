"""The service: an HTTP API process and an engine process."""

__version__ = "0.1.0"
