"""Start the command `gemoclap`: `python -m modeling_gemoclap`, or `accelerate launch -m modeling_gemoclap train`."""

from .cli import main

if __name__ == "__main__":
    main()
