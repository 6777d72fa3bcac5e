"""Work of a command by other processes: of this machine, or of a Ray cluster.

``base`` says what work is, and what does it; ``processes`` and ``cluster`` do it; ``fingerprint`` says what
its numbers depend on.
"""
