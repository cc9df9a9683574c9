"""The command `aimlhpo`: its verbs in `verbs`, and here what verbs share.

`main` finds the verb and turns errors into exit codes; `arguments` has every verb's arguments, and `loading` reads the
configuration that they name; `messages` is how results and errors are printed, `live_view` how a running study is
shown. `notebook` is the command `optimize` as a function, for Python. `templates` holds the files that `aimlhpo init`
copies; they are no part of the package's code.

The highest room: it may import every other one, and nothing imports it. It runs in the main thread of a command.
"""
