"""The exercises, one file for each lesson, each with a tuple ``EXERCISES``."""
