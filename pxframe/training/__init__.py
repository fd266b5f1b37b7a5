"""One training run: a task's data and model in an mmengine runner, trained, tested and saved.

``settings`` holds and checks the settings of training. ``make`` builds a runner from them; ``runner`` is the class of
that runner. ``run`` trains and tests a task with it. ``window`` trains a part of a run only.

The other files hold the runner's hooks. ``hooks`` sets the weights that a run begins with, ``repeatable`` seeds every
epoch and keeps checkpoints plain, ``reports`` shows and records the progress, ``sharing`` lets several processes train
one model. ``checkpoints`` signs and reads
checkpoints.

Imports ``plugin``, ``ticket`` and ``base``.
"""
