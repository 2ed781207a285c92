"""The computation below a tensor as a picture, and backpropagation through it step by step.

computation   what is in the graph, how its parts are called, and one step
layout        where the boxes and lines stand
draw          the picture
steps         the steps in words, and as a page of pictures
"""

from groundup.maths.graph.computation import Graph, Step
from groundup.maths.graph.draw import draw
from groundup.maths.graph.steps import animate, steps

__all__ = ["Graph", "Step", "animate", "draw", "steps"]
