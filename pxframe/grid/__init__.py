"""A job as a grid of cells, each a process of its own that reads and writes files in the work folder.

``cells`` lists them and what each of them needs, from the config alone. ``work`` does one cell in this process, with
the functions of ``stages``. ``schedule`` keeps account of what is ready, done and failed, ``drive`` starts processes
until nothing is left to do, and ``view`` shows how far it is. Where processes run is the business of an engine:
``local`` starts them on this machine, ``rays`` on a Ray cluster. Both start them with ``leash``, which ends a process
with whatever started it.

Imports ``stages``, ``job`` and the rooms below them.
"""
