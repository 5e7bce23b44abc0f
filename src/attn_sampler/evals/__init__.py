"""Evaluation: tasks with exact scorers."""
