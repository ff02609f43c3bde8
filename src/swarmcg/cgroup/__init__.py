"""What the kernel gives: the home where slices are made, the slices, and what they count."""
