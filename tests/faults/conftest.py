"""A server on loopback that answers as it is told."""

import pytest

from stand_ins.naughty import Naughty


@pytest.fixture
def naughty():
    server = Naughty()
    yield server
    server.close()
