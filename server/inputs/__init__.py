"""Files of puzzles in all formats that the field has."""
