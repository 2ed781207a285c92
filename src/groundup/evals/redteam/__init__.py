"""Red teaming: a search for prompts that break a model's conduct in the small world.

`attacks` is what may be tried, `target` the model that is attacked, `search` the search and the
random one that it has to beat, `judge` what counts as broken, `stage` runs it over several models,
and `report` says what it found.
"""
