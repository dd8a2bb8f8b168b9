"""``python -m dfit`` is the command ``dfit``."""

from dfit.face.cli import main

main(prog_name="dfit")
