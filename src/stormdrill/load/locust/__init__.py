"""The only room that imports Locust; always in its own process, because it patches sockets and time."""
