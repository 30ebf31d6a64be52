"""What the operating system gives a process: sockets, files, signals, threads, and the certificates on its disk."""
