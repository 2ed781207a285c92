"""Red teaming: a search for prompts that break a model's conduct in the small world.

`attacks` defines the attacks, `target` the attacked model, `search` the search and its random
baseline, `judge` what counts as broken. `stage` runs the search on several models, and `report`
presents the results.
"""
