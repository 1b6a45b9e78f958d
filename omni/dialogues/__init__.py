"""Conversations as tests: a YAML file says what a user does and what is expected of the answers.

:mod:`~omni.dialogues.format` reads such files, :mod:`~omni.dialogues.runner` plays them against a
server, :mod:`~omni.dialogues.expect` judges what came back, and :mod:`~omni.dialogues.results` is
what reports are made of. Importing this package loads none of them.
"""
