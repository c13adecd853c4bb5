"""`python -m ckptdoctor.cli`."""

from ckptdoctor.cli import main

main()
