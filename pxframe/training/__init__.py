"""One training run: a task's data and model in an mmengine runner, trained, tested and saved.

``settings`` holds and checks the settings of training. ``make`` builds a runner from them; ``runner`` is the class of
that runner, ``hooks`` has its hooks, and ``checkpoints`` signs and reads its checkpoints. ``run`` trains and tests a
task with it, ``window`` trains a part of a run only, ``slimmed`` trains without the channels that a ticket removed, and
``untrained`` tests without any training.

Imports ``plugin``, ``ticket`` and ``base``.
"""
