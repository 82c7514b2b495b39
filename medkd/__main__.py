"""`python -m medkd` is the same program as `medkd`."""

from medkd.commands import main

if __name__ == "__main__":
    main()
