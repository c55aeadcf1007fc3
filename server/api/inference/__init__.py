"""The Open Inference Protocol, version 2, over HTTP, as docs/inference-protocol.md describes it."""
