"""The keeper: a small process with one thread that is the parent of every bot.

This package imports the standard library only. It runs with ``-I -S`` and nothing but the package's parent
directory added to sys.path, so that forking it is cheap: a fork costs what the parent has in memory.
"""
