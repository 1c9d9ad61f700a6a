"""What is seen of a model and its optimizers without training: ``gradflow.check``."""

from gradflow.checks.checking import check

__all__ = ["check"]
