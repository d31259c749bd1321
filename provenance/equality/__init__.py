"""The declared rule by which two trained models count as the same: the language.

- ``declaration``: the TOML declaration, written before results are known.
- ``rules``: the rules that it is made of.
- ``exceptions``: what may differ beside the tensors.
- ``lattice``: what each equality guarantees, admits and may conclude.
- ``patterns``: how a rule selects files and tensors.

It can be read without numpy.
"""
