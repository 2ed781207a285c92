"""Turn minutes into a plan: how a recipe spends its time on this machine, and why.

A short measurement finds how fast the machine multiplies matrices and trains a model of the chosen
size. The time of stages with a fixed cost (reading data, evaluating) is subtracted; the training
stages share the rest. The plan is printed with the reason for every value and written to plan.json
next to the recipe; later starts read that file and measure nothing. A machine may become slower, so
the process that made the plan checks the clock before each table and plans it again.

`first` makes, writes and reads the plan, `values` derives its values, `seconds` estimates what
does not depend on how long a stage trains, and `replan` adjusts it to the time left.
"""

from groundup.app.plan.first import plan_recipe
from groundup.app.plan.replan import replan

__all__ = ["plan_recipe", "replan"]
