"""What measures; see README.md here for the commands and the figures."""
