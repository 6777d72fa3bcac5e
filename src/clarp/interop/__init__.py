"""Adapters to other people's tools, a module for each; nothing here is imported by ``import clarp``.

Each module imports the tool that it adapts to, at first use where the tool is large. docs/other-tools.md has
an example of each.
"""
