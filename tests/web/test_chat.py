"""Chat without a browser: what is refused, what is said of a deployment that is silent, an answer that breaks off."""

import socket
from threading import Thread

import pytest

HEAD = b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
PART = b'data: {"choices": [{"delta": {"content": "half"}}]}\n\n'


def test_without_a_door_the_page_says_so(client):
    assert "There is nobody to talk to" in client.get("/chat").text


@pytest.mark.parametrize("form", [{"door": "none", "model": "m"}, {"door": "door", "model": "m", "temperature": "9"}])
def test_a_bad_beginning_is_a_sentence(site, client, form):
    site.door = "http://127.0.0.1:9"
    assert client.post("/chat/begin", data=form).status_code == 400


def test_the_deployment_that_the_link_names_is_chosen_or_said_to_be_silent(site, client, emulated_engine):
    site.door = emulated_engine
    page = client.get("/chat?door=door").text
    assert '<option value="door">' in page
    assert "does not answer right now" not in page
    assert "bundles/x does not answer right now" in client.get("/chat?door=bundles%2Fx").text


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (HEAD + PART, "broke off"),  # HTTP/1.0: an engine that died looks like one that ended
        (
            HEAD.replace(b"1.0", b"1.1").replace(b"\r\n\r\n", b"\r\ncontent-length: 9999\r\n\r\n") + PART,
            "did not answer",
        ),
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 3\r\n\r\nbad", "answered 502: bad"),
        (b"", "did not answer"),
    ],
)
def test_an_engine_that_dies_in_mid_answer_is_told_and_what_came_is_kept(site, client, sent, said):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        site.door = f"http://127.0.0.1:{listening.getsockname()[1]}"
        place = client.post("/chat/begin", data={"door": "door", "model": "m"}).headers["location"]

        def answer():
            connection, _ = listening.accept()
            with connection:
                asked = b""
                while b"go on" not in asked:  # what is left unread would be answered with a reset
                    asked += connection.recv(65536)
                connection.sendall(sent)

        dying = Thread(target=answer)
        dying.start()
        assert "event: answer" in client.post(f"{place}/say", data={"text": "go on"}).text
        dying.join()
    page = client.get(place).text
    assert said in page
    assert ("half" in page) == (PART in sent)
