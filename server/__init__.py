"""The service: an HTTP API process and an engine process for each device."""
