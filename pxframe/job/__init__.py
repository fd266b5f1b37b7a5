"""Many runs from one config: a job's stages, the files they leave, and the table of results.

Imports every other room.
"""
