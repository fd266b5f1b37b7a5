def pytest_addoption(parser):
    parser.addoption("--write-docs", action="store_true", help="write the tables in docs/ anew, of full-size models")
