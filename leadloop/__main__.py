"""`python -m leadloop`: the command line, for whoever knows the interpreter and not the script."""

from leadloop.cli import main

main()
