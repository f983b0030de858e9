"""A locustfile that can't be used is found before anything is touched, in a process of its own."""

import sys

import pytest

from stormdrill.errors import Refused
from stormdrill.load.trial import try_locustfile

pytestmark = pytest.mark.real
OPEN = "from stormdrill.load.locust import OpenLoopUser\nclass U(OpenLoopUser):\n    def serve(self, arrival): ...\n"
CLOSED = "from locust import User, task\nclass U(User):\n    @task\n    def ask(self): ...\n"


@pytest.mark.parametrize(("text", "closed_loop"), [(OPEN, False), (CLOSED, True)])
def test_a_locustfile_that_works_passes_and_nothing_of_it_is_imported_here(tmp_path, text, closed_loop):
    file = tmp_path / "shop.py"
    file.write_text(text + "print('told to nobody')\n")
    try_locustfile(file, closed_loop=closed_loop)
    assert "locust" not in sys.modules


@pytest.mark.parametrize(
    ("text", "closed_loop", "message"),
    [
        ("import nothing_of_that_name\n", True, r"shop\.py: line 1: ModuleNotFoundError"),
        ("import sys\nsys.exit('no licence')\n", True, r"shop\.py: line 2: SystemExit: no licence"),
        ("import os\nos._exit(7)\n", True, "ends its process with code 7"),
        (OPEN, True, "is an open-loop user"),
        (CLOSED, False, "needs exactly one subclass of OpenLoopUser"),
        (CLOSED.replace("(User)", "(User, metaclass=type(User)): weight = 0\nclass V(User)"), True, "U has no @task"),
    ],
)
def test_a_locustfile_that_does_not_is_refused_with_what_it_said(tmp_path, text, closed_loop, message):
    file = tmp_path / "shop.py"
    file.write_text(text)
    with pytest.raises(Refused, match=message):
        try_locustfile(file, closed_loop=closed_loop)


def test_one_that_waits_when_it_is_imported_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("stormdrill.load.trial._LIMIT_S", 1.5)
    file = tmp_path / "shop.py"
    file.write_text("import time\ntime.sleep(60)\n")
    with pytest.raises(Refused, match="move what waits or connects into on_start"):
        try_locustfile(file, closed_loop=True)
