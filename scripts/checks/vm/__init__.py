"""A throw-away Debian machine in QEMU: systemd as PID 1, every controller, nothing of the host's."""
