"""Runs `python -m instructgpt.prepare`; see command.py."""

import sys

from instructgpt.prepare.command import main

if __name__ == "__main__":
    main(sys.argv[1:])
