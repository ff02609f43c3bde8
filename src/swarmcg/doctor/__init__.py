"""What this host can do for bots: what was seen of it (``look``), what that means (``judge``), and what a canary
proves (``selftest``).
"""
