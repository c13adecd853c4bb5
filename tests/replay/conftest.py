import pytest
from replay_runs import make_runs


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """All small runs of `replay_scenarios.py`, built once."""
    return make_runs(tmp_path_factory.mktemp("runs"))
