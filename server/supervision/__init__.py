"""The API process's side of the engines: it starts, feeds, watches and replaces them."""
