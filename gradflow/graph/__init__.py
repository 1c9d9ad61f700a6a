"""The data of a picture: nodes, edges and parameters of a backward graph, and ways to fold them.

Nothing here knows torch (the walk is in :mod:`gradflow.capture.trace`) or a drawing program (the
renderers are in :mod:`gradflow.render`).
"""

from gradflow.graph.data import Edge, Node, Parameter, Saved, Use
from gradflow.graph.graph import Graph

__all__ = ["Edge", "Graph", "Node", "Parameter", "Saved", "Use"]
