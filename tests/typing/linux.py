"""What is there on Linux alone."""

import sys

if sys.platform == "linux":
    from swarmcg import Bot
    from swarmcg.bot import StartedBot
    from swarmcg.supervisor.supervised import SupervisedBot

    def conforming(bot: SupervisedBot) -> Bot:
        """What a Starter gives on Linux can stand where a StartedBot, and a Bot, is wanted."""
        started: StartedBot = bot
        return started
