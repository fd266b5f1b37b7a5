import os

import pytest


def pytest_addoption(parser):
    parser.addoption("--write-docs", action="store_true", help="write the tables in docs/ anew, of full-size models")


@pytest.fixture
def no_report(monkeypatch):
    """The commands leave an empty page: to draw a report takes longer than to run a small job."""

    def write_report(root, tasks=None):
        (root / "report.html").touch()
        return root / "report.html"

    monkeypatch.setattr("pxframe.report.write.write_report", write_report)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """A folder of this run of the tests that all workers of pytest-xdist share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
