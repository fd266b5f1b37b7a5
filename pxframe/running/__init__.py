"""How a user's model is run, whatever it takes and gives, and left as it was.

``inputs`` handles the inputs of any model (tensors, tuples, dicts, lists of images), and ``outputs`` what it gives.
``calls`` says in one line why a model or a loss fails. ``undisturbed`` keeps models and random states as they were,
``measuring`` lets batch norms measure their inputs, ``threads`` makes backward passes repeatable, and ``wrappers``
takes wrappers off a model.

Imports ``base``.
"""
