"""Our own kernels for CPUs: C++ behind a plain C interface, one object for each instruction set, no link to torch."""
