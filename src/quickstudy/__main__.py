"""``python -m quickstudy``."""

from quickstudy.cli import main

if __name__ == "__main__":
    main()
