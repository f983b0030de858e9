"""What looks like a secret is told apart, by its name or by what it says; references and plain words aren't taken."""

from __future__ import annotations

import pytest

from stormdrill.targets.kubernetes import secretive

CLEAR = {
    "DB_PASSWORD": "wrong",
    "STRIPE_KEY": "abc",
    "api-key": "abc",
    "PGPASS": "",
    "SMTP_PASS": "abc",
    "SESSION_COOKIE": "abc",
    "OIDC_TOKEN": "abc",
    "SENTRY_DSN": "abc",
    "DATABASE": "postgres://app:hunter2@db/shop",
    "CONNECTION": "Server=db;Password=hunter2",
    "HEADER": "Bearer abcdefgh12",
    "PEM": "-----BEGIN RSA PRIVATE KEY-----\nMIIE",
    "JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
    "SETTINGS": '{"password": "hunter2"}',
    "RANDOM": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
}
PLAIN = {
    "VERSION": "1f0c2b9d8e7a6f5c4b3a2d1e0f9c8b7a6d5e4f3c",
    "PWD_FORMAT": "short",
    "MONKEYS": "12",
    "KEYBOARD": "us",
    "UPSTREAM": "http://gateway:8080/a?b=c",
    "USER_URL": "https://user@example.com/x",
    "DATABASE": "postgres://app:$(DB_PASSWORD)@db/shop",
    "SAYING": "the password is kept elsewhere",
    "LOG": "/var/log/Shop2/Requests/today.log",
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, value in CLEAR.items() if value])
def test_a_variable_that_is_named_like_a_secret_or_holds_one_looks_like_one(name: str, value: str) -> None:
    assert secretive.variable(name, value)


@pytest.mark.parametrize(("name", "value"), PLAIN.items())
def test_an_ordinary_variable_doesnt(name: str, value: str) -> None:
    assert not secretive.variable(name, value)


def test_nothing_is_no_secret_whatever_its_name() -> None:
    assert not secretive.variable("DB_PASSWORD", "")


@pytest.mark.parametrize(
    "argv",
    [
        ("server", "--db-password", "hunter2"),
        ("server", "--db-password=hunter2"),
        ("sh", "-c", "PASSWORD=hunter2 exec server"),
        ("server", "--db", "mysql://app:hunter2@db/shop"),
    ],
)
def test_a_command_that_is_given_a_secret_looks_like_it(argv: tuple[str, ...]) -> None:
    assert secretive.command(argv)


@pytest.mark.parametrize(
    "argv",
    [
        ("server", "--port", "8080", "--verbose"),
        ("server", "--no-auth", "--port=80"),
        ("sh", "-c", "exec server --password=$DB_PASSWORD"),
        ("server", "--token", "$(TOKEN)"),
        (),
    ],
)
def test_a_command_that_refers_to_one_or_has_none_doesnt(argv: tuple[str, ...]) -> None:
    assert not secretive.command(argv)
