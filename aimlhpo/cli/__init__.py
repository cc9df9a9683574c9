"""The command `aimlhpo`: one file a verb, and what verbs share.

`main` finds the verb and turns errors into exit codes; `arguments` has every verb's arguments and reads the
configuration that they name; `messages` is how results and errors are printed, `live_view` how a running study is
shown. A verb's module is loaded only after its command line and its configuration were read without a mistake, so it
imports all that it needs at its top, and help and mistakes still appear at once.

The highest room: it may import every other one, and nothing imports it. It runs in the main thread of a command.
"""
