"""Local processes: the embedded default, nothing else to install."""
