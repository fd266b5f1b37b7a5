"""A job is many runs from one config: its settings, what they describe, and the files that it writes.

``config`` reads and checks the settings, ``job`` builds what they describe, ``prunings`` lists the tickets to make, and
``exclusions`` checks what is not pruned. ``places`` and ``outputs`` say where files are, and ``made`` notes in every
file which settings made it. ``claim`` lets only one process work in the job's folder. ``results`` writes the rows, and
prints them as a table.

Imports ``pruning``, ``training``, ``plugin``, ``ticket`` and ``base``. Tasks, on images or not, come from plug-ins.
"""
