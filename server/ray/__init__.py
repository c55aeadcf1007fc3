"""The server on a Ray cluster: each engine is a replica of a Ray Serve deployment, and so is the API in front of them."""
