"""The work of a job, a stage at a time; each leaves a file, and is not repeated where that file is there.

``rehearsal`` builds everything once before any work. ``runs`` trains: the pre-training, and the transfer of a ticket.
``tickets`` makes tickets with ``subject``, which prunes one model, and ``trainer``, which trains for scorers.
``repetition`` does all of it for one seed. ``measured`` measures the tickets for commands like ``pxframe width``.

Imports ``job`` and the rooms below it.
"""
