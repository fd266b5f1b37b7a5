def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_addoption(parser):
    parser.addoption("--write-docs", action="store_true", help="write the tables in docs/ anew, of full-size models")
