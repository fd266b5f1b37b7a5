"""Files and folders that are written whole or not at all, and data that are found and unpacked.

``writing`` replaces files and keeps what is damaged, with ``scratch``, which makes the files and folders that are not
finished yet. ``lock`` keeps a second process out of a folder. ``paths`` finds data, ``archives`` unpacks it, and
``prepared`` lets a function write data once.

Imports ``base``.
"""
