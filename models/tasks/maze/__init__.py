"""Mazes: the task, how mazes are written, their shortest paths, and the random mazes of training."""

from gram.models.tasks.maze.task import Maze

__all__ = ["Maze"]
