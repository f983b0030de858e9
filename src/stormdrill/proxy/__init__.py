"""The proxy that every hop between services passes: a process of its own, standard library only, imported by nobody."""
