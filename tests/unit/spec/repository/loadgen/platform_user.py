"""Stands for a Locust file: readers only look whether it is there."""
