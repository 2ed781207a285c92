"""The roadmap's five steps as exercises: a learner's code takes the place of the product's.

    road        all exercises, in order            exercise    one of them, and what a trial is
    lesson      the sections of a lesson           own         the learner's folder and progress
    grade       a check of a learner's part        mine        the learner's parts in the product

An exercise is a folder `STEP/NAME/` and a row in the table of the step's `__init__.py`:

    lesson.md     the idea, then the sections Predict, Write, Hints, Why, Watch and read
    stub.py       the file that is copied into the learner's folder
    solution.py   a short solution
    wrong.py      the commonest mistakes: functions whose docstrings are the hints that name them,
                  REPLACES = {mistake: the function of the stub that it replaces}, and VARIANTS =
                  {function of the stub: functions that make other answers with the same mistake}
    grader.py     trials(seed): inputs for a part, and the results of the product's own function
    seam.py       where the part enters the product: USED_BY (one sentence), swap(part), a context
                  manager, and try_it(), numbers that the product computes through that seam and
                  that a part must reproduce to pass; if another part goes into the same place,
                  GIVES_WAY_TO names it

Only parts that can replace a function of the product have a seam.py. Lessons import groundup and do
not redefine anything that groundup defines.
"""
