"""A stream to a port of a pod: what the API server and the kubelet say is told, and bytes are what they were."""

import pytest
from forwarding import ForwardingServer, Program

from stormdrill.cluster.api import Lost
from stormdrill.cluster.websocket import Refusal
from stormdrill.targets.kubernetes.streams import forward


def echo(sock):
    while data := sock.recv(65536):
        sock.sendall(data)


@pytest.fixture
def server():
    with ForwardingServer() as server:
        yield server


def heard(stream, size, within=50):
    read = b""
    for _ in range(within):
        read += stream.receive(0.2)
        if len(read) >= size or stream.ended:
            break
    return read


@pytest.mark.parametrize("pieces", [False, True])
def test_bytes_pass_both_ways_and_the_ports_number_is_none_of_them(server, pieces):
    server.pieces = pieces
    data = bytes(range(256)) * 1000
    with Program(echo) as program:
        server.pods["edge"] = program.port
        stream = forward(server.api, "shop", "edge", 8080, 2.0)
        stream.send(data, 2.0)
        assert heard(stream, len(data)) == data
        stream.close()
    assert server.asked == ["/api/v1/namespaces/shop/pods/edge/portforward?ports=8080"]


def test_a_pod_that_is_not_there_is_told_with_the_servers_words(server):
    with pytest.raises(Refusal, match='pods "gone" not found'):
        forward(server.api, "shop", "gone", 8080, 2.0)


def test_a_port_where_nobody_listens_is_told_with_the_kubelets_words(server):
    with Program(echo) as program:
        port = program.port
    server.pods["edge"] = port
    stream = forward(server.api, "shop", "edge", 8080, 2.0)
    assert heard(stream, 1) == b""
    assert stream.ended
    assert "error forwarding port" in stream.why


def test_an_api_server_that_is_not_there_is_lost_and_nothing_was_sent(server):
    server.stop()
    with pytest.raises(Lost) as lost:
        forward(server.api, "shop", "edge", 8080, 2.0)
    assert not lost.value.sent
