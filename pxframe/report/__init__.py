"""What came out of a job, for people: a web page, a table for papers, a file for spreadsheets, and figures.

``data`` reads the work folder, and ``figures`` draws it. ``tables`` writes CSV and LaTeX. ``sections``, ``evidence``
and ``cost`` say what each part of the page holds, and ``write`` puts all of it together; the page's template, style
sheet and script are in ``page/``.

Imports ``job`` (what its files hold), ``evidence`` (what its numbers mean), ``plugin``, ``ticket`` and ``base``. It
trains nothing and changes no result.
"""
