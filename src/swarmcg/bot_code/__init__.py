"""A bot's code: downloaded from its Swarming server, verified, kept for all bots of the host, put where a bot
starts.

:func:`fetch` gives the path of the verified zip in the cache, :func:`install` copies it into a work
directory.
"""

from swarmcg.bot_code.attempts import Limits, check, fetch
from swarmcg.bot_code.cache import install

__all__ = ["Limits", "check", "fetch", "install"]
