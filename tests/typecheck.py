"""The type checker that the import hook of conftest.py puts on every function with tensor shapes."""

from beartype import BeartypeConf, beartype

typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do where a float is asked for
