"""What scripts/demo shows, and where: on this host, in a scope of its own, or in a user-mode-linux guest."""
