"""``python -m clarp``."""

from clarp.cli import main

if __name__ == "__main__":
    main()
