"""The command line as `python -m leadloop`, for an interpreter without the script on its path."""

from leadloop.cli.main import main

main()
