"""Commands that measure the server. README.md in this folder lists them with their figures."""
