"""An address stays while pods come and go behind it; nobody waits for what can't be reached; nothing is left open."""

import socket
import urllib.error
import urllib.request

import pytest
from forwarding import ForwardingServer, Program

from stormdrill.targets.kubernetes import reach as module
from stormdrill.targets.kubernetes.reach import Bound, Reach
from waiting import eventually


def saying(text):
    def serve(sock):
        sock.recv(65536)
        body = text.encode()
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))

    return serve


class World:
    def __init__(self, server, **options) -> None:
        self.server = server
        self.slots: dict[str, Bound] = {}
        self.reach = Reach(lambda _cluster: server.api, self.slots.get, **options)

    def bind(self, instance, pod, port, uid="") -> None:
        self.server.pods[pod] = port
        self.slots[instance] = Bound("", "shop", pod, uid or pod, 8080, "10.0.0.7")

    def get(self, instance, timeout=5.0) -> str:
        with urllib.request.urlopen(f"http://{self.reach.address(instance)}/", timeout=timeout) as answer:
            return answer.read().decode()

    def connect(self, instance) -> socket.socket:
        host, _, port = self.reach.address(instance).rpartition(":")
        return socket.create_connection((host, int(port)), timeout=10)


@pytest.fixture
def world():
    with ForwardingServer() as server:
        world = World(server)
        yield world
        world.reach.close()


def test_a_slot_that_is_bound_anew_keeps_its_address(world):
    with Program(saying("one")) as one, Program(saying("two")) as two:
        world.bind("edge-1", "edge-abc", one.port)
        address = world.reach.address("edge-1")
        assert world.get("edge-1") == "one"
        world.bind("edge-1", "edge-xyz", two.port)
        assert world.get("edge-1") == "two"
        assert world.reach.address("edge-1") == address
        assert world.reach.why("edge-1") == ""


def test_nothing_is_asked_before_somebody_connects(world):
    world.bind("edge-1", "edge-abc", 1)
    world.reach.address("edge-1")
    assert world.server.asked == []


def test_a_connection_to_a_pod_that_the_slot_has_left_is_ended(world):
    def hold(sock):
        sock.sendall(b"hello")
        sock.recv(1)

    with Program(hold) as old:
        world.bind("edge-1", "edge-abc", old.port)
        sock = world.connect("edge-1")
        assert sock.recv(5) == b"hello"
        world.bind("edge-1", "edge-xyz", 1, uid="another")
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        sock.close()


def test_an_unbound_slot_and_a_pod_that_is_gone_are_closed_at_once(world):
    assert world.connect("edge-1").recv(1) == b""
    eventually(lambda: world.reach.why("edge-1") == "no pod is bound to it")
    world.bind("edge-1", "edge-abc", 1)
    del world.server.pods["edge-abc"]
    assert world.connect("edge-1").recv(1) == b""
    eventually(lambda: 'pods "edge-abc" not found' in world.reach.why("edge-1"))
    assert "of-the-test" not in world.reach.why("edge-1")


def test_a_pod_where_nobody_listens_is_no_half_answer(world):
    with Program(saying("x")) as gone:
        port = gone.port
    world.bind("edge-1", "edge-abc", port)
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        world.get("edge-1")
    eventually(lambda: world.reach.why("edge-1"))
    assert "error forwarding port" in world.reach.why("edge-1")


def test_while_the_api_server_is_away_nobody_waits_for_it(world):
    with Program(saying("one")) as one:
        world.bind("edge-1", "edge-abc", one.port)
        assert world.get("edge-1") == "one"
        world.server.stop()
        for _ in range(3):
            assert world.connect("edge-1").recv(1) == b""
    assert "the API server can't be reached" in world.reach.why("edge-1")


def test_a_stream_that_breaks_in_the_middle_is_a_reset_and_no_end(world):
    def half(sock):
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nhalf of the answer")
        sock.recv(1)

    with Program(half) as program:
        world.bind("edge-1", "edge-abc", program.port)
        sock = world.connect("edge-1")
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        read = b""
        while b"half of" not in read:
            read += sock.recv(65536)
        world.server.end_streams()
        with pytest.raises(ConnectionResetError):
            sock.recv(65536)
        sock.close()


def test_who_has_sent_all_and_reads_on_gets_the_whole_answer(world):
    data = bytes(range(256)) * 8000

    def count(sock):
        got = b""
        while len(got) < len(data):
            got += sock.recv(65536)
        sock.sendall(got)

    with Program(count) as program:
        world.bind("edge-1", "edge-abc", program.port)
        sock = world.connect("edge-1")
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        read = b""
        while piece := sock.recv(65536):
            read += piece
        assert read == data
        sock.close()


def test_a_slow_reader_gets_everything_and_holds_up_nobody_else(world):
    data = b"x" * 6_000_000

    def pour(sock):
        sock.recv(1)
        sock.sendall(data)

    with Program(pour) as slow, Program(saying("quick")) as quick:
        world.bind("edge-1", "edge-abc", slow.port)
        world.bind("edge-2", "edge-def", quick.port)
        sock = world.connect("edge-1")
        sock.sendall(b"x")
        eventually(lambda: world.server.open == 1)
        assert world.get("edge-2") == "quick"
        size = 0
        while piece := sock.recv(65536):
            size += len(piece)
        assert size == len(data)
        sock.close()


def test_who_goes_away_leaves_no_stream(world, monkeypatch):
    monkeypatch.setattr(module, "AFTER_EOF_S", 0.2)

    def hold(sock):
        sock.recv(1)

    with Program(hold) as program:
        world.bind("edge-1", "edge-abc", program.port)
        sock = world.connect("edge-1")
        eventually(lambda: world.server.open == 1)
        sock.close()
        eventually(lambda: world.server.open == 0)


def test_there_is_an_end_to_connections_and_closing_ends_all(world, monkeypatch):
    monkeypatch.setattr(module, "CONNECTIONS", 3)

    def hold(sock):
        sock.sendall(b"x")
        sock.recv(1)

    with Program(hold) as program:
        world.bind("edge-1", "edge-abc", program.port)
        held = [world.connect("edge-1") for _ in range(3)]
        assert [sock.recv(1) for sock in held] == [b"x"] * 3
        assert world.connect("edge-1").recv(1) == b""
        world.reach.close()
        world.reach.close()
        for sock in held:
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        eventually(lambda: world.server.open == 0)
        assert world.reach.address("edge-1") == ""


def test_inside_of_the_cluster_it_is_the_pods_own_address():
    slots = {
        "edge-1": Bound("", "shop", "edge-abc", "u", 8080, "10.0.0.7"),
        "edge-2": Bound("", "shop", "edge-def", "u", 8080, "fd00::7"),
        "edge-3": Bound("", "shop", "edge-ghi", "u", 8080),
    }
    reach = Reach(lambda _: None, slots.get, direct=True)
    assert [reach.address(f"edge-{number}") for number in range(1, 5)] == ["10.0.0.7:8080", "[fd00::7]:8080", "", ""]


def test_it_needs_port_forwards_and_nothing_else():
    needs = Reach.needs("shop")
    assert {(need.resource, need.subresource, need.namespace, need.name) for need in needs} == {
        ("pods", "portforward", "shop", "")
    }
    assert all(need.why for need in needs)
