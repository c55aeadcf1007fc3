"""The Open Inference Protocol, version 2, over HTTP: what tritonclient and KServe speak. See docs/inference-protocol.md."""
