"""Graph colouring: the task, the spellings of a graph, its colourings, and the hash by which graphs are held out."""

from gram.models.tasks.coloring.task import Coloring

__all__ = ["Coloring"]
