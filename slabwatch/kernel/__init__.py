"""What the kernel's files say: one pure ``parse_<file>(data: bytes) -> record`` for each, in a module named after it.

No module here opens a file. For any bytes a parser gives its record or raises ``KernelParseError``, and a
file that was cut off never gives a wrong figure: a number that may lack digits is an error, not a value.
"""
