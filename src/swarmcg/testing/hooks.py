"""Hooks that a server sends to its bots with the handshake."""

from typing import Final

__all__ = ["NO_CIPD"]

NO_CIPD: Final = '''\
"""Hooks with which a stock bot runs tasks that need neither CIPD nor CAS, on a host that has neither."""

import os


def on_before_task(bot, bot_file, runner_cmd, runner_env):
    """Has the runner take its CAS client from a directory of ours instead of from CIPD; no task uses it."""
    directory = os.path.join(bot.base_dir, 'tmp', 'no-cas')
    client = os.path.join(directory, 'cas')
    os.makedirs(directory, exist_ok=True)
    with open(client, 'w') as script:
        script.write('#!/bin/sh\\necho this server has no CAS >&2\\nexit 1\\n')
    os.chmod(client, 0o755)
    runner_cmd.extend(['--cipd-enabled', 'false'])
    runner_env['LUCI_GO_CLIENT_DIR'] = directory
'''
"""They keep a stand-in for the CAS client in the bot's own ``tmp``, which a bot never clears."""
