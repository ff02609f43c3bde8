"""A Swarming bot of the stock bot's shape: its processes, groups, signals, files and calls; and nothing else.

Our own code, written to what was observed of the stock bot: it is to show that swarmcg copes with such a bot where
the stock package is not at hand. Packed into a zip with its server's address; standard library only, Python >= 3.8.

====================  ==================================================================================
``entry``             what ``PYTHON ZIP COMMAND`` does; copies itself to ``swarming_bot.1.zip`` first
``leader``            the bot: asks the server, starts a task runner, updates itself under the same pid
``runner``            a process for one task: follows it, reports, aborts it on SIGTERM
``isolated``          a process that runs the task's command and ends it within its grace period
====================  ==================================================================================
"""
