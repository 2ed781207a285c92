"""The roadmap's five steps as exercises: what a learner writes takes the product's place.

    road        all exercises, in order            exercise    one of them, and what a trial is
    lesson      the sections of a lesson           own         the learner's folder and progress
    grade       a check of a learner's part        mine        the learner's parts in the product

An exercise is a folder `STEP/NAME/` and a row in the table of the step's `__init__.py`:

    lesson.md     the idea, then the sections Predict, Write, Hints, Why, Watch and read
    stub.py       what is copied into the learner's folder
    solution.py   a short solution
    wrong.py      the commonest mistakes: functions whose docstrings are the hints that name them,
                  REPLACES = {mistake: the function of the stub that it takes the place of}, and
                  VARIANTS = {function of the stub: what makes other answers with the same mistake}
    grader.py     trials(seed): what is put to a part, and what the product's own function says
    seam.py       where the part enters the product: USED_BY (one sentence), swap(part), a context
                  manager, and try_it(), numbers that the product makes through that seam, which a
                  part has to give as well before it passes; where another part goes into the same
                  place, GIVES_WAY_TO names it

The last is for parts that can take the product's place. Lessons import groundup and define nothing
that groundup defines.
"""
