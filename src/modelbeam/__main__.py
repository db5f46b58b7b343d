"""``python -m modelbeam``."""

from modelbeam.cli.main import main

if __name__ == "__main__":
    main()
