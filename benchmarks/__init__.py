"""How fast swarmcg is, beside what the kernel and the standard library take for the same. Run by scripts/bench."""
