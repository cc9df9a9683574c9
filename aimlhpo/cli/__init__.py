"""The command line: `main` dispatches to one file per verb."""
