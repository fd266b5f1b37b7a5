"""What came out of a job, for people: a web page, a table for papers, a file for spreadsheets, and figures.

``found`` reads the work folder, ``tickets`` the tickets in it. ``compare`` says which method is best at each sparsity,
and how sure that is. ``figures`` draws, ``embedded`` fits a drawing into the page, ``tables`` writes CSV and LaTeX, and
``pictures`` shows predictions beside the truth. ``sections`` says what each part of the page holds, and ``write`` puts
all of it together; the page's template, style sheet and script are in ``page/``.

Imports ``job`` (what its files hold), ``plugin``, ``ticket`` and ``base``. It trains nothing and changes no result.
"""
