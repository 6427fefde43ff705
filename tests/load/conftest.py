import pytest

from stand_ins.naughty import Naughty


@pytest.fixture
def naughty():
    server = Naughty()
    yield server
    server.close()


@pytest.fixture
def naughty_tls():
    server = Naughty(tls=True)
    yield server
    server.close()
