"""``python -m modelbeam``."""

from modelbeam.cli import main

if __name__ == "__main__":
    main()
