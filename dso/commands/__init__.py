"""One file a verb: its arguments, and what it does with them.

Each has HELP and DESCRIPTION, `add_arguments(parser)` and `run(arguments)`; `dso.cli` lists them.
"""
