"""`python -m remuda`: the command line."""

from remuda.cli import main

if __name__ == "__main__":
    main()
