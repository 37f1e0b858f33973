import pytest
from regression import run


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("reference")
    run(folder)
    return folder
