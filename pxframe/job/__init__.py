"""Many runs from one config: a job's tickets, its stages, the files they leave, and the results as table and figure.

``config`` reads and checks the settings, ``job`` builds what they describe, and ``prunings`` lists the tickets to make.
``stages`` trains; ``tickets`` makes tickets with ``subject``, which prunes one model, and ``trainer``, which trains for
scorers. ``made`` writes into every file what it depends on. ``claim`` lets only one process work in the job's folder.
``results`` writes the rows, and prints them as a table.

Imports ``pruning``, ``training``, ``plugin``, ``ticket`` and ``base``. Tasks, on images or not, come from plug-ins.
"""
