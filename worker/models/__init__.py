"""Models: what a package is, which are known by name, how they are built or installed, and the runtimes."""
