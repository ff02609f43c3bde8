"""The command ``swarmcg``: one module a verb. Each is imported only when it is called."""
