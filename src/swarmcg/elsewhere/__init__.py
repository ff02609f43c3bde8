"""The engine for macOS and Windows, where there are no cgroups: the same API with a slice that does nothing.

Nothing can be limited there, and a process that leaves its bot's tree escapes. Everything else is as on Linux: the
ladder, the reports, the errors. Nothing in this room needs Linux, nor any other platform.
"""
