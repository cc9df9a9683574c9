"""The verbs of the command `aimlhpo`, one a file, or two that belong together. `VERBS` in `aimlhpo.cli.arguments` names
the function that each runs.

A verb's module is loaded only after its command line and its configuration were read without a mistake, so it imports
all that it needs at its top, and help and mistakes still appear at once.
"""
