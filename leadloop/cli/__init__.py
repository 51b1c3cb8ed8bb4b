"""The command line: `leadloop …`."""
