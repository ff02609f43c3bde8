"""What is handed out: a Debian package for each suite, and the wheel and source archive."""
