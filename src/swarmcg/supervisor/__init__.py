"""The supervisor: one thread that owns slices, starts what runs in them, walks the ladder and reports."""
