"""The API process's side of the engines: starts, feeds, watches and replaces them."""
