"""A small assembler of Flash movies: what the demo and the tests play in Ruffle is made here, without Flash tools.

`movie` writes the file, `avm1` the bytecode of ActionScript 1 and 2, `avm2` that of ActionScript 3.
"""
