"""`python -m stormdrill` is the command."""

from stormdrill.cli.main import main

if __name__ == "__main__":
    main()
