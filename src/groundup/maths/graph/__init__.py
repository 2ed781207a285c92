"""Draws the computation graph of a tensor, and backpropagation through it step by step.

computation   the graph, the names of its parts, and a step
layout        the positions of boxes and lines
draw          the picture
steps         the steps in words, and as a page of pictures
"""

from groundup.maths.graph.computation import Graph, Step
from groundup.maths.graph.draw import draw
from groundup.maths.graph.steps import animate, steps

__all__ = ["Graph", "Step", "animate", "draw", "steps"]
