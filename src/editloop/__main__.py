"""`python -m editloop`, which is what `accelerate launch -m editloop` starts."""

from editloop.cli import main

main()
